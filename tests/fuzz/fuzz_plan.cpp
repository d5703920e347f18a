// Fuzzes the plan parser: what it accepts must be valid by construction, as plan.h says.
//
// make fuzz builds it with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.

#include <algorithm>
#include <cstdlib>

#include "files.cpp"  // no part of the parser's own library
#include "plan.h"

namespace {

using goldenctl::Plan;
using goldenctl::Storage;
using goldenctl::Sublayer;
using goldenctl::Tensor;
using goldenctl::View;

// The parser launches none of them.
const std::vector<goldenctl::OpKind> kKinds{
#define OP(name, parameters, prepare, ...) {name, parameters, {__VA_ARGS__}, nullptr},
#include "op_kinds.h"
#undef OP
};
constexpr int64_t kMostVisited = 1 << 14;

void require(bool holds) {
    if (!holds) std::abort();
}

void check_storage(const Plan& plan, const Tensor& tensor, const Storage& storage) {
    require(storage.file < plan.files.size());
    require(storage.offset >= 0 && storage.first >= 0 && storage.count >= 1);
    require(storage.count <= tensor.count && storage.first <= tensor.count - storage.count);
    __int128 bytes = static_cast<__int128>(storage.count) *
                     static_cast<int64_t>(goldenctl::dtype_bytes(storage.dtype));
    require(storage.offset + bytes <= plan.files[storage.file].bytes);
    require(goldenctl::can_convert(storage.dtype, tensor.dtype));
}

void check_tensor(const Plan& plan, const Tensor& tensor) {
    require(tensor.count >= 1 && tensor.count <= int64_t{1} << 41);
    for (const Storage& load : tensor.loads) check_storage(plan, tensor, load);
    if (tensor.store) {
        check_storage(plan, tensor, *tensor.store);
        require(plan.files[tensor.store->file].write);
    }
}

void check_view(const Sublayer& sublayer, const View& view) {
    require(view.tensor < sublayer.tensors.size());
    require(!view.shape.empty() && view.shape.size() == view.strides.size());
    int64_t count = sublayer.tensors[view.tensor].count, visited = 1;
    require(0 <= view.low && view.low <= view.high && view.high < count);
    for (int64_t size : view.shape) {
        require(size >= 1);
        if (visited <= kMostVisited && size <= kMostVisited) visited *= size;
        if (visited > kMostVisited || size > kMostVisited) return;
    }
    int64_t low = count, high = -1;
    view.each(view.shape.size(), [&](int64_t element) {
        low = std::min(low, element);
        high = std::max(high, element);
    });
    require(low == view.low && high == view.high);
}

void check(const Plan& plan) {
    require(plan.repeat >= 1);
    for (const auto& file : plan.files) {
        require(file.bytes >= 0);
        try {
            require(goldenctl::decode_path(file.path).find('\0') == std::string::npos);
        } catch (const goldenctl::PlanError&) {
        }
    }
    for (const Sublayer& sublayer : plan.sublayers) {
        for (const Tensor& tensor : sublayer.tensors) check_tensor(plan, tensor);
        for (const auto& op : sublayer.ops) {
            require(op.views.size() >= 2);
            for (const View& view : op.views) check_view(sublayer, view);
            op.reads_out();
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string text(reinterpret_cast<const char*>(data), size);
    try {
        check(goldenctl::parse_plan(text, kKinds));
    } catch (const goldenctl::PlanError& error) {
        goldenctl::quote(error.what());
    }
    return 0;
}
