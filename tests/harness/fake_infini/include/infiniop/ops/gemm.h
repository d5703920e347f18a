#ifndef FAKE_INFINIOP_GEMM_H
#define FAKE_INFINIOP_GEMM_H

#include "../handle.h"
#include "../tensor_descriptor.h"

typedef struct InfiniopDescriptor* infiniopGemmDescriptor_t;
FAKE_API infiniStatus_t infiniopCreateGemmDescriptor(infiniopHandle_t handle,
                                                     infiniopGemmDescriptor_t* desc,
                                                     infiniopTensorDescriptor_t c,
                                                     infiniopTensorDescriptor_t a,
                                                     infiniopTensorDescriptor_t b);
FAKE_API infiniStatus_t infiniopGetGemmWorkspaceSize(infiniopGemmDescriptor_t desc, size_t* bytes);
FAKE_API infiniStatus_t infiniopGemm(infiniopGemmDescriptor_t desc, void* workspace, size_t bytes,
                                     void* c, const void* a, const void* b, float alpha, float beta,
                                     void* stream);
FAKE_API infiniStatus_t infiniopDestroyGemmDescriptor(infiniopGemmDescriptor_t desc);

#endif
