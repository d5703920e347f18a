#include "ops.h"

#include <infiniop/ops/add.h>
#include <infiniop/ops/causal_softmax.h>
#include <infiniop/ops/gemm.h>
#include <infiniop/ops/rearrange.h>
#include <infiniop/ops/rms_norm.h>
#include <infiniop/ops/rope.h>
#include <infiniop/ops/swiglu.h>
#include <infiniop/tensor_descriptor.h>

#include "mistakes.h"

namespace engine {
namespace {

// A tensor's descriptor, for as long as an op's descriptor is made from it.
class Desc {
  public:
    explicit Desc(const Tensor& tensor) {
        check(infiniopCreateTensorDescriptor(&desc_, tensor.shape.size(), tensor.shape.data(),
                                             tensor.strides.data(), tensor.dtype),
              "infiniopCreateTensorDescriptor");
    }
    ~Desc() { infiniopDestroyTensorDescriptor(desc_); }
    Desc(const Desc&) = delete;
    Desc& operator=(const Desc&) = delete;
    operator infiniopTensorDescriptor_t() const { return desc_; }

  private:
    infiniopTensorDescriptor_t desc_ = nullptr;
};

// An op's descriptor.
template <typename Handle>
class Op {
  public:
    explicit Op(infiniStatus_t (*destroy)(Handle)) : destroy_(destroy) {}
    ~Op() {
        if (handle) destroy_(handle);
    }
    Op(const Op&) = delete;
    Op& operator=(const Op&) = delete;

    size_t workspace_bytes(infiniStatus_t (*ask)(Handle, size_t*)) const {
        size_t bytes = 0;
        check(ask(handle, &bytes), "the workspace's size");
        return bytes;
    }

    Handle handle = nullptr;

  private:
    infiniStatus_t (*destroy_)(Handle);
};

}  // namespace

void Ops::embedding(const Tensor& out, const Tensor& table, const std::vector<int32_t>& ids) {
    size_t row = table.size(1) * dtype_bytes(table.dtype);
    for (size_t n = 0; n < ids.size(); ++n)
        check(infinirtMemcpyAsync(out.data() + n * row,
                                  table.data() + static_cast<size_t>(ids[n]) * row, row,
                                  INFINIRT_MEMCPY_D2D, device_.stream()),
              "infinirtMemcpyAsync of an embedding");
}

void Ops::linear(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    if (bias) copy(out, bias.repeat(out.size(0)));
    gemm(out, x, weight.permute({1, 0}), 1, bias ? 1 : 0);
}

void Ops::gemm(const Tensor& out, const Tensor& a, const Tensor& b, float alpha, float beta) {
    Op<infiniopGemmDescriptor_t> op(infiniopDestroyGemmDescriptor);
    check(infiniopCreateGemmDescriptor(device_.handle(), &op.handle, Desc(out), Desc(a), Desc(b)),
          "infiniopCreateGemmDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetGemmWorkspaceSize);
    check(infiniopGemm(op.handle, device_.workspace(bytes), bytes, out.data(), a.data(), b.data(),
                       alpha, beta, device_.stream()),
          "infiniopGemm");
}

void Ops::rms_norm(const Tensor& out, const Tensor& x, const Tensor& weight, float epsilon) {
    Op<infiniopRMSNormDescriptor_t> op(infiniopDestroyRMSNormDescriptor);
    check(infiniopCreateRMSNormDescriptor(device_.handle(), &op.handle, Desc(out), Desc(x),
                                          Desc(weight), epsilon),
          "infiniopCreateRMSNormDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetRMSNormWorkspaceSize);
    check(infiniopRMSNorm(op.handle, device_.workspace(bytes), bytes, out.data(), x.data(),
                          weight.data(), device_.stream()),
          "infiniopRMSNorm");
}

void Ops::rope(const Tensor& x, const Tensor& positions, const Tensor& sin, const Tensor& cos) {
    auto algorithm =
        made(Mistake::interleaved_rope) ? INFINIOP_ROPE_ALGO_GPT_J : INFINIOP_ROPE_ALGO_GPT_NEOX;
    Op<infiniopRoPEDescriptor_t> op(infiniopDestroyRoPEDescriptor);
    check(infiniopCreateRoPEDescriptor(device_.handle(), &op.handle, Desc(x), Desc(x),
                                       Desc(positions), Desc(sin), Desc(cos), algorithm),
          "infiniopCreateRoPEDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetRoPEWorkspaceSize);
    check(infiniopRoPE(op.handle, device_.workspace(bytes), bytes, x.data(), x.data(),
                       positions.data(), sin.data(), cos.data(), device_.stream()),
          "infiniopRoPE");
}

void Ops::causal_softmax(const Tensor& x) {
    Op<infiniopCausalSoftmaxDescriptor_t> op(infiniopDestroyCausalSoftmaxDescriptor);
    check(infiniopCreateCausalSoftmaxDescriptor(device_.handle(), &op.handle, Desc(x), Desc(x)),
          "infiniopCreateCausalSoftmaxDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetCausalSoftmaxWorkspaceSize);
    check(infiniopCausalSoftmax(op.handle, device_.workspace(bytes), bytes, x.data(), x.data(),
                                device_.stream()),
          "infiniopCausalSoftmax");
}

void Ops::swiglu(const Tensor& out, const Tensor& gate, const Tensor& up) {
    Op<infiniopSwiGLUDescriptor_t> op(infiniopDestroySwiGLUDescriptor);
    check(infiniopCreateSwiGLUDescriptor(device_.handle(), &op.handle, Desc(out), Desc(up),
                                         Desc(gate)),  // the op activates its second input
          "infiniopCreateSwiGLUDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetSwiGLUWorkspaceSize);
    check(infiniopSwiGLU(op.handle, device_.workspace(bytes), bytes, out.data(), up.data(),
                         gate.data(), device_.stream()),
          "infiniopSwiGLU");
}

void Ops::add(const Tensor& out, const Tensor& a, const Tensor& b) {
    Op<infiniopAddDescriptor_t> op(infiniopDestroyAddDescriptor);
    check(infiniopCreateAddDescriptor(device_.handle(), &op.handle, Desc(out), Desc(a), Desc(b)),
          "infiniopCreateAddDescriptor");
    size_t bytes = op.workspace_bytes(infiniopGetAddWorkspaceSize);
    check(infiniopAdd(op.handle, device_.workspace(bytes), bytes, out.data(), a.data(), b.data(),
                      device_.stream()),
          "infiniopAdd");
}

void Ops::copy(const Tensor& out, const Tensor& x) {
    Op<infiniopRearrangeDescriptor_t> op(infiniopDestroyRearrangeDescriptor);
    check(infiniopCreateRearrangeDescriptor(device_.handle(), &op.handle, Desc(out), Desc(x)),
          "infiniopCreateRearrangeDescriptor");
    check(infiniopRearrange(op.handle, out.data(), x.data(), device_.stream()),
          "infiniopRearrange");
}

}  // namespace engine
