#ifndef FAKE_INFINIOP_CAUSAL_SOFTMAX_H
#define FAKE_INFINIOP_CAUSAL_SOFTMAX_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopCausalSoftmaxDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateCausalSoftmaxDescriptor(
    infiniopHandle_t handle, infiniopCausalSoftmaxDescriptor_t* desc, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t x);
FAKE_API infiniStatus_t
infiniopGetCausalSoftmaxWorkspaceSize(infiniopCausalSoftmaxDescriptor_t desc, size_t* bytes);
FAKE_API infiniStatus_t infiniopCausalSoftmax(infiniopCausalSoftmaxDescriptor_t desc,
                                              void* workspace, size_t bytes, void* y, const void* x,
                                              void* stream);
FAKE_API infiniStatus_t
infiniopDestroyCausalSoftmaxDescriptor(infiniopCausalSoftmaxDescriptor_t desc);

#endif
