#include "plan.h"

#include <algorithm>
#include <array>
#include <limits>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

constexpr size_t kMaxPlanBytes = size_t{1} << 30;
constexpr size_t kMaxTensorRank = 8, kMaxViewRank = 6;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();

[[noreturn]] void fail(const std::string& where, const std::string& cause) {
    throw PlanError(where + ": " + cause);
}

std::string text(const std::vector<int64_t>& shape) {
    std::string joined;
    for (int64_t size : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(size);
    return "[" + joined + "]";
}

// An object whose keys must all be asked for: whatever is left at `finish` is unknown.
class Fields {
  public:
    Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
        if (json.kind != Json::Kind::Object) fail(where_, "expected an object");
    }

    const std::string& where() const { return where_; }

    const Json* find(const char* key) {
        for (const auto& member : json_.members)
            if (member.first == key) return ++used_, &member.second;
        return nullptr;
    }

    const Json& get(const char* key, Json::Kind kind, const char* expected) {
        const Json* found = find(key);
        if (!found) fail(where_, std::string("lacks \"") + key + "\"");
        if (found->kind != kind) fail(where_ + "." + key, std::string("expected ") + expected);
        return *found;
    }

    const std::string& string(const char* key) {
        return get(key, Json::Kind::String, "a string").text;
    }
    bool boolean(const char* key) { return get(key, Json::Kind::Boolean, "true or false").boolean; }
    const std::vector<Json>& array(const char* key) {
        return get(key, Json::Kind::Array, "an array").items;
    }
    bool has(const char* key) const {
        return std::any_of(json_.members.begin(), json_.members.end(),
                           [&](const auto& member) { return member.first == key; });
    }

    int64_t integer(const char* key, int64_t low, int64_t high) {
        int64_t value = get(key, Json::Kind::Integer, "an integer").integer;
        if (value < low || value > high)
            fail(where_ + "." + key, std::to_string(value) + " is not within " +
                                         std::to_string(low) + " .. " + std::to_string(high));
        return value;
    }

    double number(const char* key) {
        const Json* found = find(key);
        if (!found) fail(where_, std::string("lacks \"") + key + "\"");
        if (found->kind != Json::Kind::Integer && found->kind != Json::Kind::Real)
            fail(where_ + "." + key, "expected a number");
        return found->real;
    }

    std::vector<int64_t> integers(const char* key, size_t max_count, int64_t low) {
        const auto& items = array(key);
        if (items.empty() || items.size() > max_count)
            fail(where_ + "." + key, "expected 1 to " + std::to_string(max_count) +
                                         " dimensions, got " + std::to_string(items.size()));
        std::vector<int64_t> values;
        for (const Json& item : items) {
            if (item.kind != Json::Kind::Integer || item.integer < low)
                fail(where_ + "." + key,
                     "expected integers" + std::string(low == 1 ? " of at least 1" : ""));
            values.push_back(item.integer);
        }
        return values;
    }

    Dtype dtype(const char* key) {
        const std::string& name = string(key);
        auto parsed = parse_dtype(name);
        if (!parsed) fail(where_ + "." + key, "unknown dtype " + quote(name));
        return *parsed;
    }

    void finish() const {
        if (used_ == json_.members.size()) return;
        fail(where_, "unknown key among " + keys());
    }

  private:
    std::string keys() const {
        std::string joined;
        for (const auto& member : json_.members)
            joined += (joined.empty() ? "" : ", ") + quote(member.first);
        return joined;
    }

    const Json& json_;
    std::string where_;
    size_t used_ = 0;  // keys are asked for once each, and the parser refuses duplicates
};

std::string indexed(const std::string& where, const char* key, size_t index) {
    return where + (where.empty() ? "" : ".") + key + "[" + std::to_string(index) + "]";
}

Storage read_storage(const Json& json, const std::string& where, const Plan& plan,
                     const Tensor& tensor, bool store) {
    Fields fields(json, where);
    Storage storage{};
    storage.file =
        static_cast<size_t>(fields.integer("file", 0, static_cast<int64_t>(plan.files.size()) - 1));
    storage.offset = fields.integer("offset", 0, kMaxInt);
    storage.dtype = store ? tensor.dtype : fields.dtype("dtype");
    fields.finish();
    const File& file = plan.files[storage.file];
    if (store && !file.writable()) fail(where, "stores into a file that is not for writing");
    if (!can_convert(storage.dtype, tensor.dtype))
        fail(where,
             std::string(dtype_name(storage.dtype)) + " cannot become " + dtype_name(tensor.dtype));
    int64_t bytes = tensor.count * static_cast<int64_t>(dtype_bytes(storage.dtype));
    if (bytes > file.bytes() || storage.offset > file.bytes() - bytes)
        fail(where, "bytes " + std::to_string(storage.offset) + " + " + std::to_string(bytes) +
                        " are beyond the file's " + std::to_string(file.bytes()));
    return storage;
}

Tensor read_tensor(const Json& json, const std::string& where, const Plan& plan) {
    Fields fields(json, where);
    Tensor tensor{};
    tensor.name = fields.string("name");
    tensor.dtype = fields.dtype("dtype");
    if (tensor.dtype != plan.dtype && tensor.dtype != Dtype::Int32)
        fail(where + ".dtype", std::string("expected ") + dtype_name(plan.dtype) +
                                   " or int32, got " + dtype_name(tensor.dtype));
    tensor.shape = fields.integers("shape", kMaxTensorRank, 1);
    tensor.count = 1;
    for (int64_t size : tensor.shape)
        if (__builtin_mul_overflow(tensor.count, size, &tensor.count) ||
            tensor.count > kMaxElements)
            fail(where + ".shape", text(tensor.shape) + " is too large");
    if (const Json* load = fields.find("load"))
        tensor.load = read_storage(*load, where + ".load", plan, tensor, false);
    if (const Json* store = fields.find("store"))
        tensor.store = read_storage(*store, where + ".store", plan, tensor, true);
    if (tensor.load && tensor.store) fail(where, "has both \"load\" and \"store\"");
    fields.finish();
    return tensor;
}

View read_view(const Json& json, const std::string& where, const Sublayer& sublayer) {
    Fields fields(json, where);
    View view{};
    view.tensor = static_cast<size_t>(
        fields.integer("tensor", 0, static_cast<int64_t>(sublayer.tensors.size()) - 1));
    view.offset = fields.integer("offset", 0, kMaxInt);
    view.shape = fields.integers("shape", kMaxViewRank, 1);
    view.strides = fields.integers("strides", kMaxViewRank, std::numeric_limits<int64_t>::min());
    fields.finish();
    if (view.shape.size() != view.strides.size())
        fail(where, "shape has " + std::to_string(view.shape.size()) + " dimensions, strides " +
                        std::to_string(view.strides.size()));
    view.low = view.high = view.offset;
    bool overflow = false;
    for (size_t i = 0; i < view.shape.size(); ++i) {
        int64_t reach = 0;
        int64_t& end = view.strides[i] < 0 ? view.low : view.high;
        overflow |= __builtin_mul_overflow(view.shape[i] - 1, view.strides[i], &reach) ||
                    __builtin_add_overflow(end, reach, &end);
    }
    const Tensor& tensor = sublayer.tensors[view.tensor];
    if (overflow || view.low < 0 || view.high >= tensor.count)
        fail(where, "shape " + text(view.shape) + ", strides " + text(view.strides) +
                        " and offset " + std::to_string(view.offset) + " leave tensor " +
                        quote(tensor.name) + " of " + std::to_string(tensor.count) + " elements");
    return view;
}

// True when no two indices of the view meet in one element.
bool injective(const View& view) {
    std::vector<std::pair<int64_t, int64_t>> dims;  // |stride|, size
    for (size_t i = 0; i < view.shape.size(); ++i)
        if (view.shape[i] > 1) dims.emplace_back(std::abs(view.strides[i]), view.shape[i]);
    std::sort(dims.begin(), dims.end());
    int64_t reach = 0;
    for (auto [stride, size] : dims) {
        if (stride <= reach) return false;
        reach += stride * (size - 1);
    }
    return true;
}

struct OpInfo {
    const char* name;
    size_t args;
};

constexpr std::array<OpInfo, 10> kOps{{{"gather", 2},
                                       {"rms_norm", 2},
                                       {"gemm", 2},
                                       {"rope", 4},
                                       {"causal_softmax", 1},
                                       {"swiglu", 2},
                                       {"add", 2},
                                       {"mul", 2},
                                       {"rearrange", 1},
                                       {"sdpa", 3}}};

// The shape rules of each op; every message names the view that breaks one.
class OpChecker {
  public:
    OpChecker(const Op& op, const Sublayer& sublayer, Dtype dtype, std::string where)
        : op_(op), sublayer_(sublayer), dtype_(dtype), where_(std::move(where)) {}

    void check() const {
        if (!injective(op_.out)) fail(where_ + ".out", "writes one element twice");
        for (size_t i = 0; i < op_.args.size(); ++i) check_dtype(i);
        if (sublayer_.tensors[op_.out.tensor].dtype != dtype_)
            fail(where_ + ".out", std::string("expected ") + dtype_name(dtype_));
        switch (op_.kind) {
            case OpKind::Gather:
                return gather();
            case OpKind::RmsNorm:
                return rms_norm();
            case OpKind::Gemm:
                return gemm();
            case OpKind::Rope:
                return rope();
            case OpKind::CausalSoftmax:
                return causal_softmax();
            case OpKind::Sdpa:
                return sdpa();
            default:
                for (size_t i = 0; i < op_.args.size(); ++i) shape(i, op_.out.shape);
        }
    }

  private:
    void check_dtype(size_t i) const {
        bool integers = i == 1 && (op_.kind == OpKind::Gather || op_.kind == OpKind::Rope);
        Dtype expected = integers ? Dtype::Int32 : dtype_;
        Dtype actual = sublayer_.tensors[op_.args[i].tensor].dtype;
        if (actual != expected)
            fail(arg(i),
                 std::string("expected ") + dtype_name(expected) + ", got " + dtype_name(actual));
    }

    std::string arg(size_t i) const { return indexed(where_, "args", i); }

    void rank(const View& view, const std::string& where, size_t low, size_t high) const {
        if (view.shape.size() < low || view.shape.size() > high)
            fail(where, "expected " + std::to_string(low) +
                            (low == high ? "" : " to " + std::to_string(high)) +
                            " dimensions, got shape " + text(view.shape));
    }

    void shape(size_t i, const std::vector<int64_t>& expected) const {
        if (op_.args[i].shape != expected)
            fail(arg(i), "expected shape " + text(expected) + ", got " + text(op_.args[i].shape));
    }

    void out_shape(const std::vector<int64_t>& expected) const {
        if (op_.out.shape != expected)
            fail(where_ + ".out",
                 "expected shape " + text(expected) + ", got " + text(op_.out.shape));
    }

    void unit_stride(const View& view, const std::string& where) const {
        if (view.shape.back() > 1 && view.strides.back() != 1)
            fail(where, "expected a last stride of 1, got strides " + text(view.strides));
    }

    void gather() const {
        const View &table = op_.args[0], &ids = op_.args[1];
        rank(table, arg(0), 2, 2), rank(ids, arg(1), 1, 1);
        out_shape({ids.shape[0], table.shape[1]});
        unit_stride(table, arg(0)), unit_stride(op_.out, where_ + ".out");
    }

    void rms_norm() const {
        rank(op_.out, where_ + ".out", 2, 3);
        shape(0, op_.out.shape), shape(1, {op_.out.shape.back()});
        unit_stride(op_.args[0], arg(0)), unit_stride(op_.args[1], arg(1));
        unit_stride(op_.out, where_ + ".out");
    }

    void gemm() const {
        const std::vector<int64_t>&a = op_.args[0].shape, &out = op_.out.shape;
        rank(op_.out, where_ + ".out", 2, kMaxViewRank);
        size_t rank = out.size();
        if (a.size() != rank)
            fail(arg(0), "expected " + std::to_string(rank) + " dimensions, got " + text(a));
        std::vector<int64_t> expected_a = out, expected_b = out;
        expected_a[rank - 1] = expected_b[rank - 2] = a[rank - 1];
        shape(0, expected_a), shape(1, expected_b);
    }

    void rope() const {
        const View &out = op_.out, &sin = op_.args[2];
        rank(out, where_ + ".out", 3, 3), rank(sin, arg(2), 2, 2);
        if (out.shape[2] % 2 != 0) fail(where_ + ".out", "head_dim must be even");
        shape(0, out.shape), shape(1, {out.shape[0]});
        shape(2, {sin.shape[0], out.shape[2] / 2}), shape(3, sin.shape);
        unit_stride(op_.args[0], arg(0)), unit_stride(op_.args[1], arg(1));
        unit_stride(out, where_ + ".out");
        for (size_t i : {size_t{2}, size_t{3}})
            if (!op_.args[i].contiguous()) fail(arg(i), "expected a contiguous table");
    }

    void causal_softmax() const {
        rank(op_.out, where_ + ".out", 2, 3);
        shape(0, op_.out.shape);
        size_t rank = op_.out.shape.size();
        if (op_.out.shape[rank - 1] < op_.out.shape[rank - 2])
            fail(where_ + ".out", "expected T >= S, got shape " + text(op_.out.shape));
    }

    void sdpa() const {
        const View &q = op_.args[0], &k = op_.args[1];
        rank(q, arg(0), 4, 4), rank(k, arg(1), 4, 4);
        out_shape(q.shape), shape(2, k.shape);
        shape(1, {q.shape[0], k.shape[1], k.shape[2], q.shape[3]});
        if (q.shape[1] % k.shape[1] != 0 || k.shape[2] < q.shape[2])
            fail(arg(1), "heads or tokens do not fit q, got shape " + text(k.shape));
    }

    const Op& op_;
    const Sublayer& sublayer_;
    Dtype dtype_;
    std::string where_;
};

OpKind read_kind(Fields& fields) {
    const std::string& name = fields.string("op");
    for (size_t i = 0; i < kOps.size(); ++i)
        if (name == kOps[i].name) return static_cast<OpKind>(i);
    fail(fields.where() + ".op", "unknown op " + quote(name));
}

Op read_op(const Json& json, const std::string& where, const Sublayer& sublayer, Dtype dtype) {
    Fields fields(json, where);
    Op op{};
    op.kind = read_kind(fields);
    op.tap = fields.string("tap");
    const Json& out = fields.get("out", Json::Kind::Object, "an object");
    op.out = read_view(out, where + ".out", sublayer);
    const auto& args = fields.array("args");
    size_t expected = kOps[static_cast<size_t>(op.kind)].args;
    if (args.size() != expected)
        fail(where + ".args",
             "expected " + std::to_string(expected) + " views, got " + std::to_string(args.size()));
    for (size_t i = 0; i < args.size(); ++i)
        op.args.push_back(read_view(args[i], indexed(where, "args", i), sublayer));
    if (op.kind == OpKind::RmsNorm) op.epsilon = fields.number("epsilon");
    if (op.kind == OpKind::Gemm || op.kind == OpKind::Sdpa) op.alpha = fields.number("alpha");
    if (op.kind == OpKind::Gemm) op.beta = fields.number("beta");
    if (op.kind == OpKind::Rope) {
        const std::string& algo = fields.string("algo");
        if (algo != "neox" && algo != "gptj") fail(where + ".algo", "expected neox or gptj");
        op.neox = algo == "neox";
    }
    fields.finish();
    OpChecker(op, sublayer, dtype, where).check();
    return op;
}

// What an op reads must have been loaded, or written by an op before it.
void check_flow(const Sublayer& sublayer, const std::string& where) {
    std::vector<bool> written(sublayer.tensors.size());
    for (size_t i = 0; i < written.size(); ++i) written[i] = sublayer.tensors[i].load.has_value();
    auto require = [&](const View& view, const std::string& place) {
        if (!written[view.tensor])
            fail(place, "reads tensor " + quote(sublayer.tensors[view.tensor].name) +
                            " before anything has written it");
    };
    for (size_t i = 0; i < sublayer.ops.size(); ++i) {
        const Op& op = sublayer.ops[i];
        std::string place = indexed(where, "ops", i);
        for (size_t j = 0; j < op.args.size(); ++j) require(op.args[j], indexed(place, "args", j));
        if (op.beta != 0) require(op.out, place + ".out");
        written[op.out.tensor] = true;
    }
    for (size_t i = 0; i < written.size(); ++i)
        if (!written[i] && sublayer.tensors[i].store)
            fail(indexed(where, "tensors", i), "is stored, but no op writes it");
}

Sublayer read_sublayer(const Json& json, const std::string& where, const Plan& plan) {
    Fields fields(json, where);
    Sublayer sublayer;
    sublayer.name = fields.string("name");
    const auto& tensors = fields.array("tensors");
    for (size_t i = 0; i < tensors.size(); ++i)
        sublayer.tensors.push_back(read_tensor(tensors[i], indexed(where, "tensors", i), plan));
    const auto& ops = fields.array("ops");
    for (size_t i = 0; i < ops.size(); ++i)
        sublayer.ops.push_back(read_op(ops[i], indexed(where, "ops", i), sublayer, plan.dtype));
    fields.finish();
    check_flow(sublayer, where);
    return sublayer;
}

File read_file(const Json& json, const std::string& where) {
    Fields fields(json, where);
    const std::string& path = fields.string("path");
    int64_t bytes = fields.integer("bytes", 0, kMaxInt);
    bool write = fields.boolean("write");
    fields.finish();
    return File(path, bytes, write);
}

}  // namespace

const char* op_name(OpKind kind) { return kOps[static_cast<size_t>(kind)].name; }

int64_t View::count() const {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    return count;
}

bool View::contiguous() const {
    int64_t expected = 1;
    for (size_t i = shape.size(); i-- > 0; expected *= shape[i])
        if (shape[i] > 1 && strides[i] != expected) return false;
    return true;
}

bool Op::reads_out() const {
    if (beta != 0) return true;
    return std::any_of(args.begin(), args.end(), [&](const View& arg) {
        return arg.tensor == out.tensor && arg.low <= out.high && out.low <= arg.high;
    });
}

Plan read_plan(const std::string& path) {
    Json json = parse_json(read_text(path, kMaxPlanBytes));
    Fields fields(json, "plan");
    if (int64_t version = fields.integer("protocol", 0, kMaxInt); version != 1)
        fail("plan.protocol", "expected 1, got " + std::to_string(version));
    Plan plan{};
    plan.device = fields.string("device");
    plan.device_id =
        fields.has("device_id") ? static_cast<int>(fields.integer("device_id", 0, 1 << 16)) : 0;
    plan.dtype = fields.dtype("dtype");
    if (plan.dtype == Dtype::Float64 || !is_float(plan.dtype))
        fail("plan.dtype", "expected float32, bfloat16 or float16");
    plan.repeat = fields.has("repeat") ? static_cast<int>(fields.integer("repeat", 1, 1 << 20)) : 1;
    plan.stop_on_failure = fields.has("stop_on_failure") && fields.boolean("stop_on_failure");
    const auto& files = fields.array("files");
    for (size_t i = 0; i < files.size(); ++i)
        plan.files.push_back(read_file(files[i], indexed("", "files", i)));
    const auto& sublayers = fields.array("sublayers");
    for (size_t i = 0; i < sublayers.size(); ++i)
        plan.sublayers.push_back(read_sublayer(sublayers[i], indexed("", "sublayers", i), plan));
    fields.finish();
    return plan;
}

}  // namespace goldenctl
