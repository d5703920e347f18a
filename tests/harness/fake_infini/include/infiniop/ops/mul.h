#ifndef FAKE_INFINIOP_MUL_H
#define FAKE_INFINIOP_MUL_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopMulDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateMulDescriptor(infiniopHandle_t handle,
                                                    infiniopMulDescriptor_t* desc,
                                                    infiniopTensorDescriptor_t c,
                                                    infiniopTensorDescriptor_t a,
                                                    infiniopTensorDescriptor_t b);
FAKE_API infiniStatus_t infiniopGetMulWorkspaceSize(infiniopMulDescriptor_t desc, size_t* bytes);
FAKE_API infiniStatus_t infiniopMul(infiniopMulDescriptor_t desc, void* workspace, size_t bytes,
                                    void* c, const void* a, const void* b, void* stream);
FAKE_API infiniStatus_t infiniopDestroyMulDescriptor(infiniopMulDescriptor_t desc);

#endif
