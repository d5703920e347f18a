#include "ops.h"

#include <infiniop/ops/add.h>
#include <infiniop/ops/causal_softmax.h>
#include <infiniop/ops/gemm.h>
#include <infiniop/ops/rearrange.h>
#include <infiniop/ops/rms_norm.h>
#include <infiniop/ops/rope.h>
#include <infiniop/ops/swiglu.h>
#if __has_include(<infiniop/ops/mul.h>)
#include <infiniop/ops/mul.h>
#define GOLDENCTL_HAS_MUL 1
#else
#define GOLDENCTL_HAS_MUL 0
#endif

#include <array>
#include <type_traits>

#include "errors.h"

namespace goldenctl {
namespace {

using TensorDesc = infiniopTensorDescriptor_t;

// An op with its views bound to device addresses.
class Bound {
  public:
    Bound(const Engine& engine_, const Op& op_, const Addresses& addresses,
          const std::vector<Tensor>& tensors)
        : engine(engine_), op(op_), addresses_(addresses), tensors_(tensors) {}

    char* at(const View& view) const {
        return addresses_[view.tensor] + view.offset * element_bytes(view);
    }
    int64_t element_bytes(const View& view) const {
        return static_cast<int64_t>(dtype_bytes(dtype(view)));
    }
    Dtype dtype(const View& view) const { return tensors_[view.tensor].dtype; }
    EngineTensor describe(const View& view) const { return describe(view, view.shape.size()); }
    EngineTensor describe(const View& view, size_t rank) const {
        return goldenctl::describe(view, dtype(view), rank);
    }

    // The int32 values of `view`, each checked against 0 .. limit - 1.
    std::vector<int32_t> indices(const View& view, int64_t limit, const char* what) const {
        std::vector<int32_t> values(static_cast<size_t>(view.count()));
        engine.copy_out(values.data(), at(view), values.size() * sizeof(int32_t));
        for (size_t i = 0; i < values.size(); ++i)
            if (values[i] < 0 || values[i] >= limit)
                throw SublayerError("bad_input", std::string(what) + " " + std::to_string(i) +
                                                     " is " + std::to_string(values[i]) +
                                                     ", expected 0 to " +
                                                     std::to_string(limit - 1));
        return values;
    }

    const Engine& engine;
    const Op& op;

  private:
    const Addresses& addresses_;
    const std::vector<Tensor>& tensors_;
};

template <typename Desc>
using Owned = std::shared_ptr<std::remove_pointer_t<Desc>>;

template <typename Desc>
Owned<Desc> own(Desc desc, infiniStatus_t (*destroy)(Desc)) {
    return Owned<Desc>(desc, destroy);
}

// Scratch memory that an op's descriptor asks for.
struct Workspace {
    template <typename Desc>
    Workspace(const Owned<Desc>& desc, infiniStatus_t (*size_of)(Desc, size_t*)) {
        check(size_of(desc.get(), &bytes), "reading the workspace size");
        if (bytes > 0) memory = std::make_shared<DeviceMemory>(bytes);
    }
    void* data() const { return memory ? memory->data() : nullptr; }

    size_t bytes = 0;
    std::shared_ptr<DeviceMemory> memory;
};

// add, mul and swiglu share one form: two inputs, one output, no parameters.
template <typename Desc>
Launch binary(const Bound& bound, const char* name,
              infiniStatus_t (*create)(infiniopHandle_t, Desc*, TensorDesc, TensorDesc, TensorDesc),
              infiniStatus_t (*size_of)(Desc, size_t*),
              infiniStatus_t (*launch)(Desc, void*, size_t, void*, const void*, const void*, void*),
              infiniStatus_t (*destroy)(Desc)) {
    const View &out = bound.op.out, &a = bound.op.args[0], &b = bound.op.args[1];
    Desc raw = nullptr;
    check(create(bound.engine.handle(), &raw, bound.describe(out).get(), bound.describe(a).get(),
                 bound.describe(b).get()),
          name);
    auto desc = own(raw, destroy);
    Workspace space(desc, size_of);
    return [=, c = bound.at(out), x = bound.at(a), y = bound.at(b)] {
        check(launch(desc.get(), space.data(), space.bytes, c, x, y, nullptr), name);
    };
}

Launch rms_norm(const Bound& bound) {
    const View &out = bound.op.out, &x = bound.op.args[0], &w = bound.op.args[1];
    infiniopRMSNormDescriptor_t raw = nullptr;
    check(infiniopCreateRMSNormDescriptor(bound.engine.handle(), &raw, bound.describe(out).get(),
                                          bound.describe(x).get(), bound.describe(w).get(),
                                          static_cast<float>(bound.op.epsilon)),
          "infiniopCreateRMSNormDescriptor");
    auto desc = own(raw, infiniopDestroyRMSNormDescriptor);
    Workspace space(desc, infiniopGetRMSNormWorkspaceSize);
    return [=, y = bound.at(out), from = bound.at(x), weight = bound.at(w)] {
        check(infiniopRMSNorm(desc.get(), space.data(), space.bytes, y, from, weight, nullptr),
              "infiniopRMSNorm");
    };
}

// InfiniCore takes a matrix only when one of its strides is 1; where a dimension has one
// element its stride means nothing, so it can be that one.
View as_matrix(View view) {
    size_t rank = view.shape.size();
    int64_t &rows = view.strides[rank - 2], &columns = view.strides[rank - 1];
    if (rows == 1 || columns == 1) return view;
    if (view.shape[rank - 1] == 1) {
        columns = 1;
    } else if (view.shape[rank - 2] == 1) {
        rows = 1;
    }
    return view;
}

// Element offsets of (out, a, b) for every index of the dimensions before the last three.
std::vector<std::array<int64_t, 3>> outer_offsets(const Op& op) {
    std::vector<std::array<int64_t, 3>> offsets{{0, 0, 0}};
    for (size_t dim = 0; dim + 3 < op.out.shape.size(); ++dim) {
        std::vector<std::array<int64_t, 3>> wider;
        for (auto [out, a, b] : offsets)
            for (int64_t i = 0; i < op.out.shape[dim]; ++i)
                wider.push_back({out + i * op.out.strides[dim], a + i * op.args[0].strides[dim],
                                 b + i * op.args[1].strides[dim]});
        offsets = std::move(wider);
    }
    return offsets;
}

Launch gemm(const Bound& bound) {
    const View &out = bound.op.out, &a = bound.op.args[0], &b = bound.op.args[1];
    size_t rank = std::min<size_t>(out.shape.size(), 3);
    infiniopGemmDescriptor_t raw = nullptr;
    check(infiniopCreateGemmDescriptor(
              bound.engine.handle(), &raw, bound.describe(as_matrix(out), rank).get(),
              bound.describe(as_matrix(a), rank).get(), bound.describe(as_matrix(b), rank).get()),
          "infiniopCreateGemmDescriptor");
    auto desc = own(raw, infiniopDestroyGemmDescriptor);
    Workspace space(desc, infiniopGetGemmWorkspaceSize);
    auto alpha = static_cast<float>(bound.op.alpha), beta = static_cast<float>(bound.op.beta);
    int64_t bytes = bound.element_bytes(out);
    return [=, c = bound.at(out), x = bound.at(a), y = bound.at(b),
            offsets = outer_offsets(bound.op)] {
        for (auto [to, from_a, from_b] : offsets)
            check(infiniopGemm(desc.get(), space.data(), space.bytes, c + to * bytes,
                               x + from_a * bytes, y + from_b * bytes, alpha, beta, nullptr),
                  "infiniopGemm");
    };
}

// The type of the function tells the age of the header. With `algo`, 0 is GPT-J and 1 GPT-NeoX.
template <typename Algo>
infiniStatus_t create_rope(infiniStatus_t (*create)(infiniopHandle_t, infiniopRoPEDescriptor_t*,
                                                    TensorDesc, TensorDesc, TensorDesc, TensorDesc,
                                                    TensorDesc, Algo),
                           infiniopHandle_t handle, infiniopRoPEDescriptor_t* desc,
                           const std::array<EngineTensor, 5>& t, bool neox) {
    return create(handle, desc, t[0].get(), t[1].get(), t[2].get(), t[3].get(), t[4].get(),
                  static_cast<Algo>(neox ? 1 : 0));
}

// Without `algo` (before 2025-09) the op pairs neighbours, which is GPT-J: its manual defines
// y[2i] and y[2i + 1] from x[2i] and x[2i + 1]. That GPT-NeoX cannot be asked for is said, and
// not answered with the other rotation.
[[maybe_unused]] infiniStatus_t create_rope(
    infiniStatus_t (*create)(infiniopHandle_t, infiniopRoPEDescriptor_t*, TensorDesc, TensorDesc,
                             TensorDesc, TensorDesc, TensorDesc),
    infiniopHandle_t handle, infiniopRoPEDescriptor_t* desc, const std::array<EngineTensor, 5>& t,
    bool neox) {
    if (neox)
        throw SublayerError("unsupported",
                            "this InfiniCore's RoPE has no algo parameter and means gptj, "
                            "the plan wants neox");
    return create(handle, desc, t[0].get(), t[1].get(), t[2].get(), t[3].get(), t[4].get());
}

template <typename... Args>
constexpr size_t parameters(infiniStatus_t (*)(Args...)) {
    return sizeof...(Args);
}

Launch rope(const Bound& bound) {
    const Op& op = bound.op;
    const View &x = op.args[0], &positions = op.args[1], &sin = op.args[2], &cos = op.args[3];
    bound.indices(positions, sin.shape[0], "position");
    std::array<EngineTensor, 5> tensors{bound.describe(op.out), bound.describe(x),
                                        bound.describe(positions), bound.describe(sin),
                                        bound.describe(cos)};
    infiniopRoPEDescriptor_t raw = nullptr;
    check(create_rope(infiniopCreateRoPEDescriptor, bound.engine.handle(), &raw, tensors, op.neox),
          "infiniopCreateRoPEDescriptor");
    auto desc = own(raw, infiniopDestroyRoPEDescriptor);
    Workspace space(desc, infiniopGetRoPEWorkspaceSize);
    return [=, y = bound.at(op.out), from = bound.at(x), ids = bound.at(positions),
            sines = bound.at(sin), cosines = bound.at(cos)] {
        check(infiniopRoPE(desc.get(), space.data(), space.bytes, y, from, ids, sines, cosines,
                           nullptr),
              "infiniopRoPE");
    };
}

Launch causal_softmax(const Bound& bound) {
    const View &out = bound.op.out, &x = bound.op.args[0];
    infiniopCausalSoftmaxDescriptor_t raw = nullptr;
    check(infiniopCreateCausalSoftmaxDescriptor(bound.engine.handle(), &raw,
                                                bound.describe(out).get(), bound.describe(x).get()),
          "infiniopCreateCausalSoftmaxDescriptor");
    auto desc = own(raw, infiniopDestroyCausalSoftmaxDescriptor);
    Workspace space(desc, infiniopGetCausalSoftmaxWorkspaceSize);
    return [=, y = bound.at(out), from = bound.at(x)] {
        check(infiniopCausalSoftmax(desc.get(), space.data(), space.bytes, y, from, nullptr),
              "infiniopCausalSoftmax");
    };
}

Launch rearrange(const Bound& bound) {
    const View &out = bound.op.out, &x = bound.op.args[0];
    infiniopRearrangeDescriptor_t raw = nullptr;
    check(infiniopCreateRearrangeDescriptor(bound.engine.handle(), &raw, bound.describe(out).get(),
                                            bound.describe(x).get()),
          "infiniopCreateRearrangeDescriptor");
    auto desc = own(raw, infiniopDestroyRearrangeDescriptor);
    return [=, y = bound.at(out), from = bound.at(x)] {
        check(infiniopRearrange(desc.get(), y, from, nullptr), "infiniopRearrange");
    };
}

// InfiniCore gained an embedding op late; one copy per row does the same on every version.
Launch gather(const Bound& bound) {
    const View &out = bound.op.out, &table = bound.op.args[0], &ids = bound.op.args[1];
    int64_t bytes = bound.element_bytes(out);
    return [&engine = bound.engine, rows = bound.indices(ids, table.shape[0], "id"),
            to = bound.at(out), from = bound.at(table), to_stride = out.strides[0] * bytes,
            from_stride = table.strides[0] * bytes,
            row_bytes = static_cast<size_t>(out.shape[1] * bytes)] {
        for (size_t n = 0; n < rows.size(); ++n)
            engine.copy_device(to + static_cast<int64_t>(n) * to_stride,
                               from + rows[n] * from_stride, row_bytes);
    };
}

Launch mul(const Bound& bound) {
#if GOLDENCTL_HAS_MUL
    return binary(bound, "infiniopMul", infiniopCreateMulDescriptor, infiniopGetMulWorkspaceSize,
                  infiniopMul, infiniopDestroyMulDescriptor);
#else
    (void)bound;
    throw SublayerError("unsupported", "this InfiniCore has no infiniop/ops/mul.h");
#endif
}

}  // namespace

Launch prepare(const Engine& engine, const Op& op, const Addresses& addresses,
               const std::vector<Tensor>& tensors) {
    Bound bound(engine, op, addresses, tensors);
    switch (op.kind) {
        case OpKind::Gather:
            return gather(bound);
        case OpKind::RmsNorm:
            return rms_norm(bound);
        case OpKind::Gemm:
            return gemm(bound);
        case OpKind::Rope:
            return rope(bound);
        case OpKind::CausalSoftmax:
            return causal_softmax(bound);
        case OpKind::Swiglu:
            return binary(bound, "infiniopSwiGLU", infiniopCreateSwiGLUDescriptor,
                          infiniopGetSwiGLUWorkspaceSize, infiniopSwiGLU,
                          infiniopDestroySwiGLUDescriptor);
        case OpKind::Add:
            return binary(bound, "infiniopAdd", infiniopCreateAddDescriptor,
                          infiniopGetAddWorkspaceSize, infiniopAdd, infiniopDestroyAddDescriptor);
        case OpKind::Mul:
            return mul(bound);
        case OpKind::Rearrange:
            return rearrange(bound);
        case OpKind::Sdpa:
            break;
    }
    throw SublayerError("unsupported",
                        std::string(op_name(op.kind)) + " is not among this backend's ops");
}

bool engine_has_mul() { return GOLDENCTL_HAS_MUL != 0; }
bool engine_has_rope_algo() { return parameters(infiniopCreateRoPEDescriptor) == 8; }

}  // namespace goldenctl
