#ifndef FAKE_INFINIRT_H
#define FAKE_INFINIRT_H

#include "infinicore.h"

typedef enum {
    INFINIRT_MEMCPY_H2H = 0,
    INFINIRT_MEMCPY_H2D = 1,
    INFINIRT_MEMCPY_D2H = 2,
    INFINIRT_MEMCPY_D2D = 3
} infinirtMemcpyKind_t;

FAKE_API infiniStatus_t infinirtInit();
FAKE_API infiniStatus_t infinirtGetDeviceCount(infiniDevice_t device, int* count);
FAKE_API infiniStatus_t infinirtSetDevice(infiniDevice_t device, int device_id);
FAKE_API infiniStatus_t infinirtDeviceSynchronize();
FAKE_API infiniStatus_t infinirtMalloc(void** memory, size_t bytes);
FAKE_API infiniStatus_t infinirtFree(void* memory);
FAKE_API infiniStatus_t infinirtMemcpy(void* to, const void* from, size_t bytes,
                                       infinirtMemcpyKind_t kind);

#endif
