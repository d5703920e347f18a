#ifndef FAKE_INFINIOP_REARRANGE_H
#define FAKE_INFINIOP_REARRANGE_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopRearrangeDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateRearrangeDescriptor(infiniopHandle_t handle,
                                                          infiniopRearrangeDescriptor_t* desc,
                                                          infiniopTensorDescriptor_t y,
                                                          infiniopTensorDescriptor_t x);
FAKE_API infiniStatus_t infiniopRearrange(infiniopRearrangeDescriptor_t desc, void* y,
                                          const void* x, void* stream);
FAKE_API infiniStatus_t infiniopDestroyRearrangeDescriptor(infiniopRearrangeDescriptor_t desc);

#endif
