#ifndef FAKE_INFINIOP_TENSOR_DESCRIPTOR_H
#define FAKE_INFINIOP_TENSOR_DESCRIPTOR_H

#include "../infinicore.h"

struct InfiniopTensorDescriptor;
typedef struct InfiniopTensorDescriptor* infiniopTensorDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateTensorDescriptor(infiniopTensorDescriptor_t* desc,
                                                       size_t rank, const size_t* shape,
                                                       const ptrdiff_t* strides,
                                                       infiniDtype_t dtype);
FAKE_API infiniStatus_t infiniopDestroyTensorDescriptor(infiniopTensorDescriptor_t desc);

#endif
