// InfiniCore's ops over tensors. Each enqueues one op on the device's stream; outputs first.
#pragma once

#include <functional>

#include "device.h"
#include "tensor.h"

namespace engine {

class Ops {
  public:
    explicit Ops(Device& device) : device_(device) {}

    // out[n] = table[ids[n]]; out: [T, M], table: [V, M], contiguous
    void embedding(const Tensor& out, const Tensor& table, const std::vector<int32_t>& ids);

    // out = x weight^T + bias; x: [T, K], weight: [N, K], bias: [N] or none
    void linear(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias = {});

    // out = alpha a b + beta out; matrices, or batches of them
    void gemm(const Tensor& out, const Tensor& a, const Tensor& b, float alpha, float beta = 0);

    // Over the last dimension; x: [T, M] or [T, H, D]; out may be x
    void rms_norm(const Tensor& out, const Tensor& x, const Tensor& weight, float epsilon);

    // Turns x: [T, H, D] in place; positions: [T], tables: [positions, D / 2]
    void rope(const Tensor& x, const Tensor& positions, const Tensor& sin, const Tensor& cos);

    // In place; x: [H, T, S]: token t of T sees the first S - T + t + 1 keys
    void causal_softmax(const Tensor& x);

    // out = silu(gate) * up
    void swiglu(const Tensor& out, const Tensor& gate, const Tensor& up);

    void add(const Tensor& out, const Tensor& a, const Tensor& b);  // out may be a
    void copy(const Tensor& out, const Tensor& x);                  // of one shape, any strides

  private:
    Device& device_;
};

}  // namespace engine
