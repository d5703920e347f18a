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

#include <algorithm>
#include <type_traits>

#include "errors.h"

namespace goldenctl {
namespace {

using TensorDesc = infiniopTensorDescriptor_t;

constexpr bool kRopeHasAlgo =
    !std::is_invocable_v<decltype(infiniopCreateRoPEDescriptor), infiniopHandle_t,
                         infiniopRoPEDescriptor_t*, TensorDesc, TensorDesc, TensorDesc, TensorDesc,
                         TensorDesc>;

// An op with its views (out, then the args) bound to device addresses.
struct Bound {
    Bound(const Engine& engine_, const Op& op_, const Addresses& addresses,
          const std::vector<Tensor>& tensors)
        : engine(engine_), op(op_), views{op_.out} {
        views.insert(views.end(), op.args.begin(), op.args.end());
        for (const View& view : views) {
            const Tensor& tensor = tensors[view.tensor];
            dtypes.push_back(tensor.dtype);
            data.push_back(addresses[view.tensor] +
                           view.offset * static_cast<int64_t>(dtype_bytes(tensor.dtype)));
        }
    }

    const Engine& engine;
    const Op& op;
    std::vector<View> views;
    std::vector<Dtype> dtypes;
    std::vector<char*> data;  // of the element at index 0 of each view
};

// The int32 values of view `i`, each checked against 0 .. limit - 1.
std::vector<int32_t> indices(const Bound& bound, size_t i, int64_t limit, const std::string& what) {
    std::vector<int32_t> values(static_cast<size_t>(bound.views[i].count()));
    bound.engine.copy_out(values.data(), bound.data[i], values.size() * sizeof(int32_t));
    for (size_t n = 0; n < values.size(); ++n)
        if (values[n] < 0 || values[n] >= limit)
            throw SublayerError("bad_input", what + " " + std::to_string(n) + " is " +
                                                 std::to_string(values[n]) + ", expected 0 to " +
                                                 std::to_string(limit - 1));
    return values;
}

// InfiniCore's op `name`: `create(handle, &descriptor, tensors...)` now, and at each launch
// `run(descriptor, workspace, its bytes, addresses...)`. `I` counts the views.
template <typename Desc, typename Create, typename Run, size_t... I>
Launch make(std::index_sequence<I...>, const Bound& bound, const std::string& name, Create create,
            infiniStatus_t (*workspace_size)(Desc, size_t*), Run run,
            infiniStatus_t (*destroy)(Desc)) {
    std::vector<EngineTensor> tensors;
    for (size_t i : {I...}) {
        size_t rank = bound.views[i].shape.size();
        if (bound.op.kind == OpKind::Gemm) rank = std::min<size_t>(rank, 3);
        tensors.push_back(describe(bound.views[i], bound.dtypes[i], rank));
    }
    Desc raw = nullptr;
    check(create(bound.engine.handle(), &raw, tensors[I].get()...),
          "infiniopCreate" + name + "Descriptor");
    std::shared_ptr<std::remove_pointer_t<Desc>> desc(raw, destroy);
    size_t bytes = 0;
    if (workspace_size) check(workspace_size(raw, &bytes), "infiniopGet" + name + "WorkspaceSize");
    std::shared_ptr<char> workspace;
    if (bytes > 0) workspace = allocate(bytes);
    return [=, data = bound.data, call = "infiniop" + name] {
        check(run(desc.get(), workspace.get(), bytes, data[I]...), call);
    };
}

// The same for the op whose interface is the plainest: no parameters, one stream at the end.
template <size_t Views, typename Desc, typename Create, typename Run>
Launch plain(const Bound& bound, const std::string& name, Create create,
             infiniStatus_t (*workspace_size)(Desc, size_t*), Run run,
             infiniStatus_t (*destroy)(Desc)) {
    auto launch = [run](auto... arguments) { return run(arguments..., nullptr); };
    return make(std::make_index_sequence<Views>(), bound, name, create, workspace_size, launch,
                destroy);
}

Launch rms_norm(const Bound& bound) {
    auto create = [&](auto... arguments) {
        return infiniopCreateRMSNormDescriptor(arguments..., static_cast<float>(bound.op.epsilon));
    };
    return plain<3>(bound, "RMSNorm", create, infiniopGetRMSNormWorkspaceSize, infiniopRMSNorm,
                    infiniopDestroyRMSNormDescriptor);
}

// InfiniCore takes a matrix only when one of its strides is 1; where a dimension has one
// element its stride means nothing, so it can be that one.
void make_matrix(View& view) {
    size_t rank = view.shape.size();
    int64_t &rows = view.strides[rank - 2], &columns = view.strides[rank - 1];
    if (rows == 1 || columns == 1) return;
    if (view.shape[rank - 1] == 1) {
        columns = 1;
    } else if (view.shape[rank - 2] == 1) {
        rows = 1;
    }
}

// The engine has one batch dimension; those before it are looped over.
Launch gemm(Bound bound) {
    std::vector<std::vector<int64_t>> starts;  // of out, a and b: bytes, at each outer index
    for (size_t i = 0; i < 3; ++i) {
        make_matrix(bound.views[i]);
        View outer = bound.views[i];
        outer.offset = 0;
        starts.push_back(outer.offsets(std::max<size_t>(outer.shape.size(), 3) - 3));
        for (int64_t& start : starts.back())
            start *= static_cast<int64_t>(dtype_bytes(bound.dtypes[i]));
    }
    auto alpha = static_cast<float>(bound.op.alpha), beta = static_cast<float>(bound.op.beta);
    auto run = [=](auto desc, void* workspace, size_t bytes, char* out, char* a, char* b) {
        infiniStatus_t status = INFINI_STATUS_SUCCESS;
        for (size_t i = 0; i < starts[0].size() && status == INFINI_STATUS_SUCCESS; ++i)
            status = infiniopGemm(desc, workspace, bytes, out + starts[0][i], a + starts[1][i],
                                  b + starts[2][i], alpha, beta, nullptr);
        return status;
    };
    return make(std::make_index_sequence<3>(), bound, "Gemm", infiniopCreateGemmDescriptor,
                infiniopGetGemmWorkspaceSize, run, infiniopDestroyGemmDescriptor);
}

// Becomes the enumeration that older headers do not name: 0 is GPT-J, 1 GPT-NeoX.
struct RopeAlgo {
    bool neox;
    template <typename Algo>
    operator Algo() const {
        return static_cast<Algo>(neox ? 1 : 0);
    }
};

// Without `algo` (before 2025-09) the op pairs neighbours, which is GPT-J: its manual defines
// y[2i] and y[2i + 1] from x[2i] and x[2i + 1]. That GPT-NeoX cannot be asked for is said, and
// not answered with the other rotation.
Launch rope(const Bound& bound) {
    indices(bound, 2, bound.op.args[2].shape[0], "position");
    bool neox = bound.op.neox;
    if (neox && !kRopeHasAlgo)
        throw SublayerError("unsupported",
                            "this InfiniCore's RoPE has no algo parameter and means gptj, "
                            "the plan wants neox");
    auto create = [neox](auto... arguments) {
        if constexpr (kRopeHasAlgo) {
            return infiniopCreateRoPEDescriptor(arguments..., RopeAlgo{neox});
        } else {
            return infiniopCreateRoPEDescriptor(arguments...);
        }
    };
    return plain<5>(bound, "RoPE", create, infiniopGetRoPEWorkspaceSize, infiniopRoPE,
                    infiniopDestroyRoPEDescriptor);
}

Launch rearrange(const Bound& bound) {
    auto run = [](auto desc, void*, size_t, char* out, char* from) {
        return infiniopRearrange(desc, out, from, nullptr);
    };
    infiniStatus_t (*no_workspace)(infiniopRearrangeDescriptor_t, size_t*) = nullptr;
    return make(std::make_index_sequence<2>(), bound, "Rearrange",
                infiniopCreateRearrangeDescriptor, no_workspace, run,
                infiniopDestroyRearrangeDescriptor);
}

// InfiniCore gained an embedding op late; one copy per row does the same on every version.
Launch gather(const Bound& bound) {
    const View &out = bound.views[0], &table = bound.views[1];
    auto bytes = static_cast<int64_t>(dtype_bytes(bound.dtypes[0]));
    return [&engine = bound.engine, rows = indices(bound, 2, table.shape[0], "id"),
            to = bound.data[0], from = bound.data[1], to_stride = out.strides[0] * bytes,
            from_stride = table.strides[0] * bytes,
            row_bytes = static_cast<size_t>(out.shape[1] * bytes)] {
        for (size_t n = 0; n < rows.size(); ++n)
            engine.copy_device(to + static_cast<int64_t>(n) * to_stride,
                               from + rows[n] * from_stride, row_bytes);
    };
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
            return plain<2>(bound, "CausalSoftmax", infiniopCreateCausalSoftmaxDescriptor,
                            infiniopGetCausalSoftmaxWorkspaceSize, infiniopCausalSoftmax,
                            infiniopDestroyCausalSoftmaxDescriptor);
        case OpKind::Swiglu:
            return plain<3>(bound, "SwiGLU", infiniopCreateSwiGLUDescriptor,
                            infiniopGetSwiGLUWorkspaceSize, infiniopSwiGLU,
                            infiniopDestroySwiGLUDescriptor);
        case OpKind::Add:
            return plain<3>(bound, "Add", infiniopCreateAddDescriptor, infiniopGetAddWorkspaceSize,
                            infiniopAdd, infiniopDestroyAddDescriptor);
#if GOLDENCTL_HAS_MUL
        case OpKind::Mul:
            return plain<3>(bound, "Mul", infiniopCreateMulDescriptor, infiniopGetMulWorkspaceSize,
                            infiniopMul, infiniopDestroyMulDescriptor);
#endif
        case OpKind::Rearrange:
            return rearrange(bound);
        default:
            throw SublayerError("unsupported", std::string("this InfiniCore or backend has no ") +
                                                   op_name(op.kind));
    }
}

bool engine_has_mul() { return GOLDENCTL_HAS_MUL != 0; }
bool engine_has_rope_algo() { return kRopeHasAlgo; }

}  // namespace goldenctl
