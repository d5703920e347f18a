// The operator half: float32 add, rearrange and gemm; the other ops are not implemented.
#include <infiniop/handle.h>
#include <infiniop/ops/add.h>
#include <infiniop/ops/causal_softmax.h>
#include <infiniop/ops/gemm.h>
#include <infiniop/ops/rearrange.h>
#include <infiniop/ops/rms_norm.h>
#include <infiniop/ops/rope.h>
#include <infiniop/ops/swiglu.h>
#include <unistd.h>

#include <map>
#include <stdexcept>
#include <vector>

#include "fake.h"

struct InfiniopHandle {};

struct InfiniopTensorDescriptor {
    std::vector<size_t> shape;
    std::vector<ptrdiff_t> strides;
};

struct InfiniopDescriptor {
    std::string op;
    std::vector<InfiniopTensorDescriptor> tensors;  // the output first
    int algo = 0;                                   // of RoPE
};

using Tensor = InfiniopTensorDescriptor;

namespace {

// True at the launches that FAKE_FAULT wants to go wrong in the way `fault`.
struct Faults {
    explicit Faults(const std::string& op) {
        static std::map<std::string, int> launches;
        int launch = launches[op]++;
        std::string call = environment("FAKE_FAULT_CALL");
        if (op == environment("FAKE_FAULT_OP") &&
            (call.empty() || std::atoi(call.c_str()) == launch))
            fault = environment("FAKE_FAULT");
    }
    bool is(const char* name) const { return fault == name; }
    std::string fault;
};

size_t count(const Tensor& tensor) {
    size_t product = 1;
    for (size_t size : tensor.shape) product *= size;
    return product;
}

// Address of element `index` (row-major) of a float32 tensor in device memory.
float* element(const Tensor& tensor, const void* device, size_t index) {
    ptrdiff_t offset = 0;
    for (size_t i = tensor.shape.size(); i-- > 0; index /= tensor.shape[i])
        offset += static_cast<ptrdiff_t>(index % tensor.shape[i]) * tensor.strides[i];
    return reinterpret_cast<float*>(real(device)) + offset;
}

int descriptors = 0;  // of tensors, made so far

template <typename Compute>
infiniStatus_t launch(InfiniopDescriptor* desc, void* out, Compute compute) {
    Faults faults(desc->op);
    const Tensor& y = desc->tensors[0];
    if (faults.is("status")) return INFINI_STATUS_BAD_PARAM;
    if (faults.is("throw")) throw std::runtime_error("a stand-in's exception");
    if (faults.is("abort")) std::abort();
    if (faults.is("sleep")) ::sleep(600);
    size_t last = count(y) - 1;
    for (size_t i = 0; i <= last; ++i)
        if (!(faults.is("unwritten") && i == last))
            *element(y, out, i) = compute(i) + (faults.is("stale") ? *element(y, out, i) / 2 : 0);
    if (faults.is("carried")) *element(y, out, last) += static_cast<float>(descriptors);
    if (faults.is("noise")) *element(y, out, last) += static_cast<float>(::getpid() % 1009);
    if (faults.is("overrun")) element(y, out, last)[1] = 7;
    if (faults.is("underrun")) element(y, out, 0)[-1] = 7;
    if (faults.is("stray")) element(y, out, 0)[1] = 7;
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t create(InfiniopDescriptor** desc, const char* op, std::vector<Tensor> tensors) {
    if (op == environment("FAKE_FAULT_OP") && environment("FAKE_FAULT") == "unsupported")
        return INFINI_STATUS_NOT_IMPLEMENTED;
    *desc = new InfiniopDescriptor{op, std::move(tensors)};
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t destroy(InfiniopDescriptor* desc) {
    delete desc;
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t workspace(size_t* bytes) {
    *bytes = 128;
    return INFINI_STATUS_SUCCESS;
}

}  // namespace

infiniStatus_t infiniopCreateHandle(infiniopHandle_t* handle) {
    *handle = new InfiniopHandle;
    return INFINI_STATUS_SUCCESS;
}
infiniStatus_t infiniopDestroyHandle(infiniopHandle_t handle) {
    delete handle;
    return INFINI_STATUS_SUCCESS;
}
infiniStatus_t infiniopCreateTensorDescriptor(infiniopTensorDescriptor_t* desc, size_t rank,
                                              const size_t* shape, const ptrdiff_t* strides,
                                              infiniDtype_t) {
    ++descriptors;
    *desc = new Tensor{{shape, shape + rank}, {strides, strides + rank}};
    return INFINI_STATUS_SUCCESS;
}
infiniStatus_t infiniopDestroyTensorDescriptor(infiniopTensorDescriptor_t desc) {
    delete desc;
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t infiniopCreateAddDescriptor(infiniopHandle_t, infiniopAddDescriptor_t* desc,
                                           Tensor* c, Tensor* a, Tensor* b) {
    return create(desc, "add", {*c, *a, *b});
}
infiniStatus_t infiniopGetAddWorkspaceSize(infiniopAddDescriptor_t, size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopAdd(infiniopAddDescriptor_t desc, void* workspace, size_t bytes, void* c,
                           const void* a, const void* b, void*) {
    auto* scratch = reinterpret_cast<float*>(real(workspace));
    std::string fault = environment("FAKE_FAULT_OP") == "add" ? environment("FAKE_FAULT") : "";
    if (fault == "scratch overrun") scratch[bytes / sizeof(float)] = 7;
    float extra = fault == "stale scratch" ? scratch[bytes / sizeof(float) - 1] : 0;
    return launch(desc, c, [&](size_t i) {
        return *element(desc->tensors[1], a, i) + *element(desc->tensors[2], b, i) + extra;
    });
}
infiniStatus_t infiniopDestroyAddDescriptor(infiniopAddDescriptor_t desc) { return destroy(desc); }

infiniStatus_t infiniopCreateRearrangeDescriptor(infiniopHandle_t,
                                                 infiniopRearrangeDescriptor_t* desc, Tensor* y,
                                                 Tensor* x) {
    return create(desc, "rearrange", {*y, *x});
}
infiniStatus_t infiniopRearrange(infiniopRearrangeDescriptor_t desc, void* y, const void* x,
                                 void*) {
    return launch(desc, y, [&](size_t i) { return *element(desc->tensors[1], x, i); });
}
infiniStatus_t infiniopDestroyRearrangeDescriptor(infiniopRearrangeDescriptor_t desc) {
    return destroy(desc);
}

infiniStatus_t infiniopCreateGemmDescriptor(infiniopHandle_t, infiniopGemmDescriptor_t* desc,
                                            Tensor* c, Tensor* a, Tensor* b) {
    return create(desc, "gemm", {*c, *a, *b});
}
infiniStatus_t infiniopGetGemmWorkspaceSize(infiniopGemmDescriptor_t, size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopGemm(infiniopGemmDescriptor_t desc, void*, size_t, void* c, const void* a,
                            const void* b, float alpha, float beta, void*) {
    const Tensor &out = desc->tensors[0], &x = desc->tensors[1], &w = desc->tensors[2];
    if (out.shape.size() != 2) return INFINI_STATUS_BAD_TENSOR_SHAPE;
    size_t inner = x.shape[1], columns = w.shape[1];
    return launch(desc, c, [&](size_t i) {
        float sum = 0;
        for (size_t k = 0; k < inner; ++k)
            sum +=
                *element(x, a, i / columns * inner + k) * *element(w, b, k * columns + i % columns);
        return alpha * sum + (beta == 0 ? 0 : beta * *element(out, c, i));
    });
}
infiniStatus_t infiniopDestroyGemmDescriptor(infiniopGemmDescriptor_t desc) {
    return destroy(desc);
}

// Writes the algorithm that it was asked for (10 for GPT-J, 11 for GPT-NeoX, 9 for the old form).
#ifdef FAKE_INFINI_OLD
infiniStatus_t infiniopCreateRoPEDescriptor(infiniopHandle_t, infiniopRoPEDescriptor_t* desc,
                                            Tensor* y, Tensor* x, Tensor*, Tensor*, Tensor*) {
    infiniStatus_t status = create(desc, "rope", {*y, *x});
    (*desc)->algo = 9;
    return status;
}
#else
infiniStatus_t infiniopCreateRoPEDescriptor(infiniopHandle_t, infiniopRoPEDescriptor_t* desc,
                                            Tensor* y, Tensor* x, Tensor*, Tensor*, Tensor*,
                                            infiniopRoPEAlgo_t algo) {
    infiniStatus_t status = create(desc, "rope", {*y, *x});
    (*desc)->algo = algo == INFINIOP_ROPE_ALGO_GPT_NEOX ? 11 : 10;
    return status;
}
#endif
infiniStatus_t infiniopGetRoPEWorkspaceSize(infiniopRoPEDescriptor_t, size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopRoPE(infiniopRoPEDescriptor_t desc, void*, size_t, void* y, const void*,
                            const void*, const void*, const void*, void*) {
    return launch(desc, y, [&](size_t) { return static_cast<float>(desc->algo); });
}
infiniStatus_t infiniopDestroyRoPEDescriptor(infiniopRoPEDescriptor_t desc) {
    return destroy(desc);
}

infiniStatus_t infiniopCreateRMSNormDescriptor(infiniopHandle_t, infiniopRMSNormDescriptor_t*,
                                               Tensor*, Tensor*, Tensor*, float) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopGetRMSNormWorkspaceSize(infiniopRMSNormDescriptor_t, size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopRMSNorm(infiniopRMSNormDescriptor_t, void*, size_t, void*, const void*,
                               const void*, void*) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopDestroyRMSNormDescriptor(infiniopRMSNormDescriptor_t desc) {
    return destroy(desc);
}

infiniStatus_t infiniopCreateCausalSoftmaxDescriptor(infiniopHandle_t,
                                                     infiniopCausalSoftmaxDescriptor_t*, Tensor*,
                                                     Tensor*) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopGetCausalSoftmaxWorkspaceSize(infiniopCausalSoftmaxDescriptor_t,
                                                     size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopCausalSoftmax(infiniopCausalSoftmaxDescriptor_t, void*, size_t, void*,
                                     const void*, void*) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopDestroyCausalSoftmaxDescriptor(infiniopCausalSoftmaxDescriptor_t desc) {
    return destroy(desc);
}

infiniStatus_t infiniopCreateSwiGLUDescriptor(infiniopHandle_t, infiniopSwiGLUDescriptor_t*,
                                              Tensor*, Tensor*, Tensor*) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopGetSwiGLUWorkspaceSize(infiniopSwiGLUDescriptor_t, size_t* bytes) {
    return workspace(bytes);
}
infiniStatus_t infiniopSwiGLU(infiniopSwiGLUDescriptor_t, void*, size_t, void*, const void*,
                              const void*, void*) {
    return INFINI_STATUS_NOT_IMPLEMENTED;
}
infiniStatus_t infiniopDestroySwiGLUDescriptor(infiniopSwiGLUDescriptor_t desc) {
    return destroy(desc);
}
