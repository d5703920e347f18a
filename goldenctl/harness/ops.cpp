#include <infiniop/ops/add.h>
#include <infiniop/ops/causal_softmax.h>
#include <infiniop/ops/gemm.h>
#include <infiniop/ops/rearrange.h>
#include <infiniop/ops/rms_norm.h>
#include <infiniop/ops/rope.h>
#include <infiniop/ops/swiglu.h>
#include <infiniop/tensor_descriptor.h>

#include <algorithm>
#include <type_traits>

#include "engine.h"
#include "errors.h"

namespace goldenctl {
namespace {

using TensorDesc = infiniopTensorDescriptor_t;

// RoPE gained its last parameter in 2025-09.
constexpr bool kRopeHasAlgo =
    !std::is_invocable_v<decltype(infiniopCreateRoPEDescriptor), infiniopHandle_t,
                         infiniopRoPEDescriptor_t*, TensorDesc, TensorDesc, TensorDesc, TensorDesc,
                         TensorDesc>;

std::shared_ptr<InfiniopTensorDescriptor> describe(const Operand& operand) {
    static constexpr infiniDtype_t types[] = {INFINI_DTYPE_F16, INFINI_DTYPE_BF16,
                                              INFINI_DTYPE_F32, INFINI_DTYPE_F64,
                                              INFINI_DTYPE_I32, INFINI_DTYPE_I64};
    std::vector<size_t> shape(operand.view.shape.begin(), operand.view.shape.end());
    std::vector<ptrdiff_t> strides(operand.view.strides.begin(), operand.view.strides.end());
    TensorDesc descriptor = nullptr;
    check(infiniopCreateTensorDescriptor(&descriptor, shape.size(), shape.data(), strides.data(),
                                         types[static_cast<size_t>(operand.dtype)]),
          "infiniopCreateTensorDescriptor");
    return {descriptor, infiniopDestroyTensorDescriptor};
}

// The int32 values of an operand, each checked against 0 .. limit - 1.
std::vector<int32_t> indices(const Operand& operand, int64_t limit, const std::string& what) {
    std::vector<int32_t> values(static_cast<size_t>(operand.view.shape[0]));
    copy_out(values.data(), operand.data, values.size() * sizeof(int32_t));
    for (size_t n = 0; n < values.size(); ++n)
        if (values[n] < 0 || values[n] >= limit)
            throw SublayerError(
                "bad_input", say(what, " ", n, " is ", values[n], ", expected 0 to ", limit - 1));
    return values;
}

// InfiniCore's op `name`: `create(handle, &descriptor, tensors...)` now, and at each launch
// `run(descriptor, workspace, its bytes, addresses..., stream)`. `I` counts the operands.
template <size_t... I, typename Desc, typename Create, typename Run>
Launch make(std::index_sequence<I...>, const Operands& operands, const std::string& name,
            Create create, infiniStatus_t (*workspace_size)(Desc, size_t*), Run run,
            infiniStatus_t (*destroy)(Desc)) {
    Desc raw = nullptr;
    check(create(device_handle(), &raw, describe(operands[I]).get()...),
          "infiniopCreate" + name + "Descriptor");
    std::shared_ptr<std::remove_pointer_t<Desc>> desc(raw, destroy);
    size_t bytes = 0;
    if (workspace_size) check(workspace_size(raw, &bytes), "infiniopGet" + name + "WorkspaceSize");
    auto workspace = bytes > 0 ? std::make_shared<Buffer>(bytes) : nullptr;
    char* scratch = workspace ? workspace->data() : nullptr;
    auto launch = [=] {
        check(run(desc.get(), scratch, bytes, operands[I].data..., nullptr), "infiniop" + name);
    };
    return {launch, workspace};
}

template <size_t Count, typename... Calls>
Launch make(const Operands& operands, Calls... calls) {
    return make(std::make_index_sequence<Count>(), operands, calls...);
}

// The engine has one batch dimension; those before it are looped over.
Launch gemm(const Op& op, const Operands& whole) {
    Operands operands = whole;
    std::vector<std::vector<int64_t>> starts;  // of each operand: bytes, at each outer index
    for (auto& [view, dtype, data] : operands) {
        auto width = static_cast<int64_t>(dtype_bytes(dtype));
        auto outer = static_cast<ptrdiff_t>(std::max<size_t>(view.shape.size(), 3) - 3);
        auto& here = starts.emplace_back();
        view.each(static_cast<size_t>(outer),
                  [&](int64_t at) { here.push_back((at - view.offset) * width); });
        view.shape.erase(view.shape.begin(), view.shape.begin() + outer);
        view.strides.erase(view.strides.begin(), view.strides.begin() + outer);
    }
    auto alpha = static_cast<float>(op.parameters.at("alpha"));
    auto beta = static_cast<float>(op.parameters.at("beta"));
    auto run = [=](auto desc, void* workspace, size_t bytes, char* out, char* a, char* b, auto) {
        infiniStatus_t status = INFINI_STATUS_SUCCESS;
        for (size_t i = 0; i < starts[0].size() && status == INFINI_STATUS_SUCCESS; ++i)
            status = infiniopGemm(desc, workspace, bytes, out + starts[0][i], a + starts[1][i],
                                  b + starts[2][i], alpha, beta, nullptr);
        return status;
    };
    return make<3>(operands, "Gemm", infiniopCreateGemmDescriptor, infiniopGetGemmWorkspaceSize,
                   run, infiniopDestroyGemmDescriptor);
}

// Becomes the enumeration that older headers do not name: 0 is GPT-J, 1 GPT-NeoX.
struct RopeAlgo {
    bool neox;
    template <typename Algo>
    operator Algo() const {
        return static_cast<Algo>(neox ? 1 : 0);
    }
};

// Without `algo` the op pairs neighbours, which is GPT-J: its manual defines y[2i] and y[2i + 1]
// from x[2i] and x[2i + 1]. That GPT-NeoX cannot be asked for is said, and not answered with
// the other rotation.
Launch rope(const Op& op, const Operands& operands) {
    indices(operands[2], operands[3].view.shape[0], "position");
    bool neox = op.parameters.at("algo") != 0;
    if (neox && !kRopeHasAlgo)
        throw SublayerError(
            "unsupported",
            "this InfiniCore's RoPE has no algo and means gptj, the plan wants neox");
    auto create = [neox](auto... arguments) {
        if constexpr (kRopeHasAlgo) {
            return infiniopCreateRoPEDescriptor(arguments..., RopeAlgo{neox});
        } else {
            return infiniopCreateRoPEDescriptor(arguments...);
        }
    };
    return make<5>(operands, "RoPE", create, infiniopGetRoPEWorkspaceSize, infiniopRoPE,
                   infiniopDestroyRoPEDescriptor);
}

Launch rms_norm(const Op& op, const Operands& operands) {
    auto create = [epsilon = static_cast<float>(op.parameters.at("epsilon"))](auto... arguments) {
        return infiniopCreateRMSNormDescriptor(arguments..., epsilon);
    };
    return make<3>(operands, "RMSNorm", create, infiniopGetRMSNormWorkspaceSize, infiniopRMSNorm,
                   infiniopDestroyRMSNormDescriptor);
}

Launch rearrange(const Op&, const Operands& operands) {
    auto run = [](auto desc, void*, size_t, auto... arguments) {
        return infiniopRearrange(desc, arguments...);
    };
    infiniStatus_t (*no_workspace)(infiniopRearrangeDescriptor_t, size_t*) = nullptr;
    return make<2>(operands, "Rearrange", infiniopCreateRearrangeDescriptor, no_workspace, run,
                   infiniopDestroyRearrangeDescriptor);
}

// InfiniCore gained an embedding op late; one copy per row does the same on every version.
Launch gather(const Op&, const Operands& operands) {
    const Operand &out = operands[0], &table = operands[1];
    auto width = static_cast<int64_t>(dtype_bytes(out.dtype));
    auto rows = indices(operands[2], table.view.shape[0], "id");
    return {[=] {
                for (size_t n = 0; n < rows.size(); ++n)
                    copy_device(out.data + static_cast<int64_t>(n) * out.view.strides[0] * width,
                                table.data + rows[n] * table.view.strides[0] * width,
                                static_cast<size_t>(out.view.shape[1] * width));
            },
            nullptr};
}

// An op that takes `count` views and nothing else, by what InfiniCore calls it.
#define PLAIN(count, Name)                                                    \
    [](const Op&, const Operands& operands) {                                 \
        return make<count>(operands, #Name, infiniopCreate##Name##Descriptor, \
                           infiniopGet##Name##WorkspaceSize, infiniop##Name,  \
                           infiniopDestroy##Name##Descriptor);                \
    }

}  // namespace

const std::vector<OpKind> kOpKinds{
#define OP(name, parameters, prepare, ...) {name, parameters, {__VA_ARGS__}, prepare},
#include "op_kinds.h"
#undef OP
};

const OpKind& op_kind(const std::string& name) {
    return *std::find_if(kOpKinds.begin(), kOpKinds.end(),
                         [&](const OpKind& kind) { return kind.name == name; });
}

Launch prepare(const Op& op, const Sublayer& sublayer, const std::vector<Buffer>& buffers) {
    if (!op.kind->prepare)
        throw SublayerError("unsupported", say("InfiniCore has no ", op.kind->name));
    Operands operands;
    for (const View& view : op.views) {
        Dtype dtype = sublayer.tensors[view.tensor].dtype;
        operands.push_back(
            {view, dtype,
             buffers[view.tensor].data() + view.offset * static_cast<int64_t>(dtype_bytes(dtype))});
    }
    return op.kind->prepare(op, operands);
}

bool engine_has_rope_algo() { return kRopeHasAlgo; }

}  // namespace goldenctl
