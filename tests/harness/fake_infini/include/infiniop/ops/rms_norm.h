#ifndef FAKE_INFINIOP_RMS_NORM_H
#define FAKE_INFINIOP_RMS_NORM_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopRMSNormDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateRMSNormDescriptor(
    infiniopHandle_t handle, infiniopRMSNormDescriptor_t* desc, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t x, infiniopTensorDescriptor_t w, float epsilon);
FAKE_API infiniStatus_t infiniopGetRMSNormWorkspaceSize(infiniopRMSNormDescriptor_t desc,
                                                        size_t* bytes);
FAKE_API infiniStatus_t infiniopRMSNorm(infiniopRMSNormDescriptor_t desc, void* workspace,
                                        size_t bytes, void* y, const void* x, const void* w,
                                        void* stream);
FAKE_API infiniStatus_t infiniopDestroyRMSNormDescriptor(infiniopRMSNormDescriptor_t desc);

#endif
