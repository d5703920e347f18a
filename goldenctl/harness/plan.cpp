#include "plan.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

constexpr size_t kMaxTensorRank = 8, kMaxViewRank = 6;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInt = std::numeric_limits<int64_t>::min();

using Integers = std::vector<int64_t>;

std::string text(const Integers& values) {
    std::string joined;
    for (int64_t value : values) joined += say(joined.empty() ? "" : ", ", value);
    return "[" + joined + "]";
}

// --- reading: every field, and what one record shows by itself ---

size_t read_index(JsonReader& in) { return static_cast<size_t>(in.integer(0, kMaxInt)); }

Dtype read_dtype(JsonReader& in) { return static_cast<Dtype>(in.choice(dtype_names())); }

const OpKind* read_kind(JsonReader& in, const std::vector<OpKind>& kinds) {
    std::vector<const char*> names;
    for (const OpKind& kind : kinds) names.push_back(kind.name);
    return &kinds[in.choice(names)];
}

Integers read_integers(JsonReader& in, int64_t low, size_t most) {
    Integers values;
    in.array([&] { values.push_back(in.integer(low, kMaxInt)); });
    if (values.empty() || values.size() > most)
        in.fail("expected 1 to ", most, " dimensions, got ", text(values));
    return values;
}

PlanFile read_file(JsonReader& in) {
    PlanFile file{};
    in.object({{"path", [&] { file.path = in.string(); }},
               {"bytes", [&] { file.bytes = in.integer(0, kMaxInt); }},
               {"write", [&] { file.write = in.boolean(); }}});
    return file;
}

// The first `fields` of those that say where a tensor's elements are.
Storage read_storage(JsonReader& in, size_t fields) {
    Storage storage{};
    std::vector<JsonReader::Field> known{
        {"file", [&] { storage.file = read_index(in); }},
        {"offset", [&] { storage.offset = in.integer(0, kMaxInt); }},
        {"dtype", [&] { storage.dtype = read_dtype(in); }},
        {"first", [&] { storage.first = in.integer(0, kMaxElements); }},
        {"count", [&] { storage.count = in.integer(1, kMaxElements); }}};
    known.resize(fields);
    in.object(known);
    return storage;
}

Tensor read_tensor(JsonReader& in) {
    Tensor tensor{};
    Integers shape;
    std::optional<Storage> load;
    bool has_parts = false;
    auto read_parts = [&] {
        has_parts = true;
        in.array([&] { tensor.loads.push_back(read_storage(in, 5)); });
    };
    in.object({{"name", [&] { tensor.name = in.string(); }},
               {"dtype", [&] { tensor.dtype = read_dtype(in); }},
               {"shape", [&] { shape = read_integers(in, 1, kMaxTensorRank); }},
               {"load", [&] { load = read_storage(in, 3); }, false},
               {"parts", read_parts, false},
               {"store", [&] { tensor.store = read_storage(in, 2); }, false}});
    if (load.has_value() + has_parts + tensor.store.has_value() > 1)
        in.fail("has more than one of \"load\", \"parts\" and \"store\"");
    tensor.count = 1;
    for (int64_t size : shape)
        if (__builtin_mul_overflow(tensor.count, size, &tensor.count) ||
            tensor.count > kMaxElements)
            in.fail("shape ", text(shape), " is too large");
    if (load) load->count = tensor.count, tensor.loads = {*load};
    if (tensor.store) tensor.store->count = tensor.count, tensor.store->dtype = tensor.dtype;
    return tensor;
}

View read_view(JsonReader& in) {
    View view{};
    in.object({{"tensor", [&] { view.tensor = read_index(in); }},
               {"offset", [&] { view.offset = in.integer(0, kMaxInt); }},
               {"shape", [&] { view.shape = read_integers(in, 1, kMaxViewRank); }},
               {"strides", [&] { view.strides = read_integers(in, kMinInt, kMaxViewRank); }}});
    if (view.shape.size() != view.strides.size())
        in.fail("shape ", text(view.shape), " does not go with strides ", text(view.strides));
    view.low = view.high = view.offset;
    for (size_t i = 0; i < view.shape.size(); ++i) {
        int64_t reach = 0;
        int64_t& end = view.strides[i] < 0 ? view.low : view.high;
        if (__builtin_mul_overflow(view.shape[i] - 1, view.strides[i], &reach) ||
            __builtin_add_overflow(end, reach, &end))
            in.fail("strides ", text(view.strides), " are too large");
    }
    return view;
}

Op read_op(JsonReader& in, const std::vector<OpKind>& kinds) {
    Op op{};
    op.views.resize(1);
    auto number = [&](const char* key) -> JsonReader::Field {
        return {key, [&op, &in, key] { op.parameters[key] = in.number(); }, false};
    };
    auto algo = [&] { op.parameters["algo"] = static_cast<double>(in.choice({"gptj", "neox"})); };
    in.object({{"op", [&] { op.kind = read_kind(in, kinds); }},
               {"tap", [&] { op.tap = in.string(); }},
               {"out", [&] { op.views[0] = read_view(in); }},
               {"args", [&] { in.array([&] { op.views.push_back(read_view(in)); }); }},
               {"algo", algo, false},
               number("alpha"),
               number("beta"),
               number("choices"),
               number("epsilon"),
               number("renormalise")});
    return op;
}

Sublayer read_sublayer(JsonReader& in, const std::vector<OpKind>& kinds) {
    Sublayer sublayer;
    in.object({{"name", [&] { in.string(); }},
               {"tensors", [&] { in.array([&] { sublayer.tensors.push_back(read_tensor(in)); }); }},
               {"ops", [&] { in.array([&] { sublayer.ops.push_back(read_op(in, kinds)); }); }}});
    return sublayer;
}

// --- checking: what it takes several records to see ---

void check_storage(const JsonReader& in, const Plan& plan, const Tensor& tensor,
                   const Storage& storage) {
    if (!can_convert(storage.dtype, tensor.dtype))
        in.fail(dtype_name(storage.dtype), " cannot become ", dtype_name(tensor.dtype));
    if (storage.first + storage.count > tensor.count)
        in.fail("elements ", storage.first, " + ", storage.count, " are beyond the tensor's ",
                tensor.count);
    if (storage.file >= plan.files.size()) in.fail("there is no file ", storage.file);
    int64_t whole = plan.files[storage.file].bytes;
    int64_t bytes = storage.count * static_cast<int64_t>(dtype_bytes(storage.dtype));
    if (bytes > whole || storage.offset > whole - bytes)
        in.fail("bytes ", storage.offset, " + ", bytes, " are beyond the file's ", whole);
}

void check_tensor(const JsonReader& in, const Plan& plan, const Tensor& tensor) {
    if (tensor.dtype != plan.dtype && tensor.dtype != Dtype::Int32)
        in.fail("expected ", dtype_name(plan.dtype), " or int32, got ", dtype_name(tensor.dtype));
    for (const Storage& load : tensor.loads) check_storage(in, plan, tensor, load);
    if (!tensor.store) return;
    check_storage(in, plan, tensor, *tensor.store);
    if (!plan.files[tensor.store->file].write)
        in.fail("stores into a file that is not for writing");
}

// True when the last `dims` dimensions are contiguous.
bool is_dense(const View& view, size_t dims) {
    int64_t expected = 1;
    for (size_t i = view.shape.size(); dims-- > 0; expected *= view.shape[i])
        if (view.shape[--i] > 1 && view.strides[i] != expected) return false;
    return true;
}

// True when no two indices of the view meet in one element.
bool is_injective(const View& view) {
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

void check_reach(const JsonReader& in, const Sublayer& sublayer, const View& view, Dtype dtype) {
    if (view.tensor >= sublayer.tensors.size()) in.fail("there is no tensor ", view.tensor);
    const Tensor& tensor = sublayer.tensors[view.tensor];
    if (tensor.dtype != dtype)
        in.fail("expected ", dtype_name(dtype), ", got ", dtype_name(tensor.dtype));
    if (view.low < 0 || view.high >= tensor.count)
        in.fail("shape ", text(view.shape), ", strides ", text(view.strides), " and offset ",
                view.offset, " leave tensor ", quote(tensor.name), " of ", tensor.count,
                " elements");
}

// `outer` dimensions are what a `*` stands for; `sizes` has those of the letters met so far.
void check_shape(const JsonReader& in, const View& view, const ViewRule& rule, size_t outer,
                 std::map<char, int64_t>& sizes) {
    std::string letters = rule.shape;
    if (letters[0] == '*') letters.replace(0, 1, std::string("012345"), 0, outer);
    if (view.shape.size() != letters.size())
        in.fail("expected ", letters.size(), " dimensions, got shape ", text(view.shape));
    Integers expected;
    for (size_t i = 0; i < letters.size(); ++i) {
        if (letters[i] == 'd') sizes.emplace('d', sizes['D'] / 2);
        expected.push_back(sizes.emplace(letters[i], view.shape[i]).first->second);
    }
    if (view.shape != expected)
        in.fail("expected shape ", text(expected), ", got ", text(view.shape));
    if (!is_dense(view, rule.dense))
        in.fail("expected the last ", rule.dense, " dimensions contiguous, got strides ",
                text(view.strides));
}

void check_op(JsonReader& in, const Plan& plan, const Sublayer& sublayer, const Op& op) {
    const OpKind& rule = *op.kind;
    size_t inner = rule.views[0].shape.size() - 1, rank = op.out().shape.size();
    std::string parameters;
    for (const auto& [name, value] : op.parameters) parameters += name + " ";
    if (parameters != rule.parameters)
        in.fail("expected parameters: ", rule.parameters, "got: ", parameters);
    if (op.views.size() != rule.views.size())
        in.fail("expected ", rule.views.size() - 1, " args, got ", op.views.size() - 1);
    std::map<char, int64_t> sizes;
    for (size_t i = 0; i < op.views.size(); ++i)
        in.within(i == 0 ? ".out" : say(".args[", i - 1, "]"), [&] {
            const ViewRule& wanted = rule.views[i];
            check_reach(in, sublayer, op.views[i], wanted.ids ? Dtype::Int32 : plan.dtype);
            check_shape(in, op.views[i], wanted, rank - std::min(rank, inner), sizes);
        });
    if (!is_injective(op.out())) in.fail("out writes one element twice");
    if (sizes.count('d') && sizes['d'] * 2 != sizes['D']) in.fail("head_dim must be even");
    if (sizes['T'] < sizes['S']) in.fail("expected T >= S");
    if (sizes.count('H') && sizes.count('K') && sizes['H'] % sizes['K'] != 0)
        in.fail("expected a multiple of the kv heads as query heads");
}

void check_sublayer(JsonReader& in, const Plan& plan, const Sublayer& sublayer) {
    for (size_t i = 0; i < sublayer.tensors.size(); ++i)
        in.within(say(".tensors[", i, "]"), [&] { check_tensor(in, plan, sublayer.tensors[i]); });
    for (size_t i = 0; i < sublayer.ops.size(); ++i)
        in.within(say(".ops[", i, "]"), [&] { check_op(in, plan, sublayer, sublayer.ops[i]); });
}

}  // namespace

bool Op::reads_out() const {
    auto beta = parameters.find("beta");
    return (beta != parameters.end() && beta->second != 0) ||
           std::any_of(views.begin() + 1, views.end(), [&](const View& arg) {
               return arg.tensor == out().tensor && arg.low <= out().high && out().low <= arg.high;
           });
}

Plan parse_plan(std::string text, const std::vector<OpKind>& kinds) {
    JsonReader in(std::move(text), "plan");
    Plan plan{};
    auto small = [&](int64_t low, int64_t high) { return static_cast<int>(in.integer(low, high)); };
    in.object({{"protocol", [&] { small(1, 1); }},
               {"device", [&] { plan.device = in.string(); }},
               {"device_id", [&] { plan.device_id = small(0, 1 << 16); }, false},
               {"dtype", [&] { plan.dtype = read_dtype(in); }},
               {"repeat", [&] { plan.repeat = small(1, 1 << 20); }, false},
               {"stop_on_failure", [&] { plan.stop_on_failure = in.boolean(); }, false},
               {"files", [&] { in.array([&] { plan.files.push_back(read_file(in)); }); }},
               {"sublayers",
                [&] { in.array([&] { plan.sublayers.push_back(read_sublayer(in, kinds)); }); }}});
    in.end();
    if (plan.dtype > Dtype::Float32) in.fail("dtype: expected float32, bfloat16 or float16");
    for (size_t i = 0; i < plan.sublayers.size(); ++i)
        in.within(say(".sublayers[", i, "]"), [&] { check_sublayer(in, plan, plan.sublayers[i]); });
    return plan;
}

}  // namespace goldenctl
