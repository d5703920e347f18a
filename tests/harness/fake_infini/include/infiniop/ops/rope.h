#ifndef FAKE_INFINIOP_ROPE_H
#define FAKE_INFINIOP_ROPE_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopRoPEDescriptor_t;
#ifdef FAKE_INFINI_OLD
FAKE_API infiniStatus_t infiniopCreateRoPEDescriptor(
    infiniopHandle_t handle, infiniopRoPEDescriptor_t* desc, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t x, infiniopTensorDescriptor_t positions,
    infiniopTensorDescriptor_t sines, infiniopTensorDescriptor_t cosines);
#else
typedef enum { INFINIOP_ROPE_ALGO_GPT_J = 0, INFINIOP_ROPE_ALGO_GPT_NEOX = 1 } infiniopRoPEAlgo_t;
FAKE_API infiniStatus_t infiniopCreateRoPEDescriptor(
    infiniopHandle_t handle, infiniopRoPEDescriptor_t* desc, infiniopTensorDescriptor_t y,
    infiniopTensorDescriptor_t x, infiniopTensorDescriptor_t positions,
    infiniopTensorDescriptor_t sines, infiniopTensorDescriptor_t cosines, infiniopRoPEAlgo_t algo);
#endif
FAKE_API infiniStatus_t infiniopGetRoPEWorkspaceSize(infiniopRoPEDescriptor_t desc, size_t* bytes);
FAKE_API infiniStatus_t infiniopRoPE(infiniopRoPEDescriptor_t desc, void* workspace, size_t bytes,
                                     void* y, const void* x, const void* positions,
                                     const void* sines, const void* cosines, void* stream);
FAKE_API infiniStatus_t infiniopDestroyRoPEDescriptor(infiniopRoPEDescriptor_t desc);

#endif
