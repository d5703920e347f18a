#ifndef FAKE_INFINIOP_SWIGLU_H
#define FAKE_INFINIOP_SWIGLU_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopSwiGLUDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateSwiGLUDescriptor(infiniopHandle_t handle,
                                                       infiniopSwiGLUDescriptor_t* desc,
                                                       infiniopTensorDescriptor_t c,
                                                       infiniopTensorDescriptor_t a,
                                                       infiniopTensorDescriptor_t b);
FAKE_API infiniStatus_t infiniopGetSwiGLUWorkspaceSize(infiniopSwiGLUDescriptor_t desc,
                                                       size_t* bytes);
FAKE_API infiniStatus_t infiniopSwiGLU(infiniopSwiGLUDescriptor_t desc, void* workspace,
                                       size_t bytes, void* c, const void* a, const void* b,
                                       void* stream);
FAKE_API infiniStatus_t infiniopDestroySwiGLUDescriptor(infiniopSwiGLUDescriptor_t desc);

#endif
