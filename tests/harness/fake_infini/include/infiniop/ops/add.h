#ifndef FAKE_INFINIOP_ADD_H
#define FAKE_INFINIOP_ADD_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopAddDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateAddDescriptor(infiniopHandle_t handle,
                                                    infiniopAddDescriptor_t* desc,
                                                    infiniopTensorDescriptor_t c,
                                                    infiniopTensorDescriptor_t a,
                                                    infiniopTensorDescriptor_t b);
FAKE_API infiniStatus_t infiniopGetAddWorkspaceSize(infiniopAddDescriptor_t desc, size_t* bytes);
FAKE_API infiniStatus_t infiniopAdd(infiniopAddDescriptor_t desc, void* workspace, size_t bytes,
                                    void* c, const void* a, const void* b, void* stream);
FAKE_API infiniStatus_t infiniopDestroyAddDescriptor(infiniopAddDescriptor_t desc);

#endif
