#ifndef FAKE_INFINIOP_HANDLE_H
#define FAKE_INFINIOP_HANDLE_H

#include "../infinicore.h"

typedef struct InfiniopHandle* infiniopHandle_t;
FAKE_API infiniStatus_t infiniopCreateHandle(infiniopHandle_t* handle);
FAKE_API infiniStatus_t infiniopDestroyHandle(infiniopHandle_t handle);

#endif
