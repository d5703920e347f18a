#include "plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

constexpr size_t kMaxTensorRank = 8, kMaxViewRank = 6;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInt = std::numeric_limits<int64_t>::min();

// Unit: the last stride is 1. Dense: contiguous. Ids: contiguous int32.
enum Layout { Strided, Unit, Dense, Ids };

// What a view must be. `shape` has a letter per dimension: the same letter is the same size
// throughout an op, and `d` is half of `D`. A leading `*` stands for any outer dimensions and
// `?` for at most one; they are the same throughout an op too.
struct ViewRule {
    const char* shape;
    Layout layout = Strided;
};

struct OpRule {
    const char* name;
    const char* parameters;
    std::vector<ViewRule> views;  // out, then the args
};

const std::array<OpRule, 10> kRules{{
    {"gather", "", {{"NM", Unit}, {"VM", Unit}, {"N", Ids}}},
    {"rms_norm", "epsilon", {{"?NM", Unit}, {"?NM", Unit}, {"M", Unit}}},
    {"gemm", "alpha beta", {{"*MN"}, {"*MK"}, {"*KN"}}},
    {"rope", "algo", {{"NHD", Unit}, {"NHD", Unit}, {"N", Ids}, {"Pd", Dense}, {"Pd", Dense}}},
    {"causal_softmax", "", {{"?ST"}, {"?ST"}}},
    {"swiglu", "", {{"*"}, {"*"}, {"*"}}},
    {"add", "", {{"*"}, {"*"}, {"*"}}},
    {"mul", "", {{"*"}, {"*"}, {"*"}}},
    {"rearrange", "", {{"*"}, {"*"}}},
    {"sdpa", "alpha", {{"BHSD"}, {"BHSD"}, {"BKTD"}, {"BKTD"}}},
}};

const OpRule& rule(OpKind kind) { return kRules[static_cast<size_t>(kind)]; }

std::string text(const std::vector<int64_t>& shape) {
    std::string joined;
    for (int64_t size : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(size);
    return "[" + joined + "]";
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

// The sizes of one op's letters, learned from its views in their order.
class Sizes {
  public:
    void match(const char* pattern, const std::vector<int64_t>& shape, const Node& node) {
        std::string letters = pattern;
        char outer = letters[0] == '*' || letters[0] == '?' ? letters[0] : '\0';
        if (outer) letters.erase(0, 1);
        size_t most = outer == '*'   ? kMaxViewRank
                      : outer == '?' ? letters.size() + 1
                                     : letters.size();
        if (!outer_known_ && outer && shape.size() >= letters.size() && shape.size() <= most) {
            outer_.assign(shape.begin(), shape.end() - static_cast<ptrdiff_t>(letters.size()));
            outer_known_ = true;
        }
        std::vector<int64_t> expected = outer ? outer_ : std::vector<int64_t>{};
        if (shape.size() != expected.size() + letters.size())
            node.fail("expected " + std::to_string(expected.size() + letters.size()) +
                      " dimensions, got shape " + text(shape));
        for (char letter : letters) {
            int64_t actual = shape[expected.size()];
            if (letter == 'd') sizes_.emplace('d', sizes_.at('D') / 2);
            expected.push_back(sizes_.emplace(letter, actual).first->second);
        }
        if (shape != expected)
            node.fail("expected shape " + text(expected) + ", got " + text(shape));
    }

    int64_t operator[](char letter) const { return sizes_.at(letter); }

  private:
    std::map<char, int64_t> sizes_;
    std::vector<int64_t> outer_;
    bool outer_known_ = false;
};

Dtype read_dtype(const Node& node) {
    auto parsed = parse_dtype(node.string());
    if (!parsed) node.fail("unknown dtype " + quote(node.string()));
    return *parsed;
}

// Where `count` elements of a tensor are in a file.
Storage read_storage(const Node& node, const Plan& plan, const Tensor& tensor, int64_t count,
                     bool store) {
    auto files = static_cast<int64_t>(plan.files.size());
    Storage storage{};
    storage.file = static_cast<size_t>(node["file"].integer(0, files - 1));
    storage.offset = node["offset"].integer(0, kMaxInt);
    storage.dtype = store ? tensor.dtype : read_dtype(node["dtype"]);
    const File& file = plan.files[storage.file];
    if (store && !file.writable()) node.fail("stores into a file that is not for writing");
    if (!can_convert(storage.dtype, tensor.dtype))
        node.fail(std::string(dtype_name(storage.dtype)) + " cannot become " +
                  dtype_name(tensor.dtype));
    int64_t bytes = count * static_cast<int64_t>(dtype_bytes(storage.dtype));
    if (bytes > file.bytes() || storage.offset > file.bytes() - bytes)
        node.fail("bytes " + std::to_string(storage.offset) + " + " + std::to_string(bytes) +
                  " are beyond the file's " + std::to_string(file.bytes()));
    return storage;
}

Part read_part(const Node& node, const Plan& plan, const Tensor& tensor) {
    node.refuse_other_keys({"file", "offset", "dtype", "first", "count"});
    Part part{};
    part.first = node["first"].integer(0, tensor.count - 1);
    part.count = node["count"].integer(1, tensor.count - part.first);
    part.from = read_storage(node, plan, tensor, part.count, false);
    return part;
}

Tensor read_tensor(const Node& node, const Plan& plan) {
    node.refuse_other_keys({"name", "dtype", "shape", "load", "parts", "store"});
    Tensor tensor{node["name"].string(),
                  read_dtype(node["dtype"]),
                  node["shape"].integers(kMaxTensorRank, 1),
                  1,
                  {},
                  {}};
    if (tensor.dtype != plan.dtype && tensor.dtype != Dtype::Int32)
        node["dtype"].fail(std::string("expected ") + dtype_name(plan.dtype) + " or int32, got " +
                           dtype_name(tensor.dtype));
    for (int64_t size : tensor.shape)
        if (__builtin_mul_overflow(tensor.count, size, &tensor.count) ||
            tensor.count > kMaxElements)
            node["shape"].fail(text(tensor.shape) + " is too large");
    if (node.has("load") + node.has("parts") + node.has("store") > 1)
        node.fail("has more than one of \"load\", \"parts\" and \"store\"");
    if (node.has("load")) {
        node["load"].refuse_other_keys({"file", "offset", "dtype"});
        Storage from = read_storage(node["load"], plan, tensor, tensor.count, false);
        tensor.loads.push_back({from, 0, tensor.count});
    }
    if (node.has("parts"))
        for (const Node& part : node["parts"].items())
            tensor.loads.push_back(read_part(part, plan, tensor));
    if (node.has("store")) {
        node["store"].refuse_other_keys({"file", "offset"});
        tensor.store = read_storage(node["store"], plan, tensor, tensor.count, true);
    }
    return tensor;
}

View read_view(const Node& node, const Sublayer& sublayer) {
    node.refuse_other_keys({"tensor", "offset", "shape", "strides"});
    auto tensors = static_cast<int64_t>(sublayer.tensors.size());
    View view{static_cast<size_t>(node["tensor"].integer(0, tensors - 1)),
              node["offset"].integer(0, kMaxInt),
              node["shape"].integers(kMaxViewRank, 1),
              node["strides"].integers(kMaxViewRank, kMinInt),
              0,
              0};
    if (view.shape.size() != view.strides.size())
        node.fail("shape has " + std::to_string(view.shape.size()) + " dimensions, strides " +
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
        node.fail("shape " + text(view.shape) + ", strides " + text(view.strides) + " and offset " +
                  std::to_string(view.offset) + " leave tensor " + quote(tensor.name) + " of " +
                  std::to_string(tensor.count) + " elements");
    return view;
}

void check_layout(const ViewRule& rule, const View& view, const Node& node) {
    if (rule.layout >= Dense && !view.contiguous())
        node.fail("expected a contiguous table, got strides " + text(view.strides));
    if (rule.layout == Unit && view.shape.back() > 1 && view.strides.back() != 1)
        node.fail("expected a last stride of 1, got strides " + text(view.strides));
}

void check_views(const Op& op, const Node& node, const Sublayer& sublayer, Dtype dtype) {
    if (!injective(op.out)) node["out"].fail("writes one element twice");
    Sizes sizes;
    std::vector<Node> nodes = node["args"].items();
    nodes.insert(nodes.begin(), node["out"]);
    for (size_t i = 0; i < nodes.size(); ++i) {
        const ViewRule& wanted = rule(op.kind).views[i];
        const View& view = i == 0 ? op.out : op.args[i - 1];
        Dtype actual = sublayer.tensors[view.tensor].dtype;
        Dtype expected = wanted.layout == Ids ? Dtype::Int32 : dtype;
        if (actual != expected)
            nodes[i].fail(std::string("expected ") + dtype_name(expected) + ", got " +
                          dtype_name(actual));
        sizes.match(wanted.shape, view.shape, nodes[i]);
        check_layout(wanted, view, nodes[i]);
    }
    if (op.kind == OpKind::Rope && sizes['D'] % 2 != 0) node["out"].fail("head_dim must be even");
    bool causal = op.kind == OpKind::CausalSoftmax || op.kind == OpKind::Sdpa;
    if (causal && sizes['T'] < sizes['S']) node.fail("expected T >= S");
    if (op.kind == OpKind::Sdpa && sizes['H'] % sizes['K'] != 0)
        node.fail("expected a multiple of the kv heads as query heads");
}

void read_parameters(Op& op, const Node& node) {
    static constexpr std::pair<const char*, double Op::*> numbers[] = {
        {"epsilon", &Op::epsilon}, {"alpha", &Op::alpha}, {"beta", &Op::beta}};
    std::string_view parameters = rule(op.kind).parameters;
    for (auto [name, number] : numbers) {
        bool known = parameters.find(name) != parameters.npos;
        if (known) op.*number = node[name].number();
        if (!known && node.has(name)) node.fail("unknown key " + quote(name));
    }
    if (parameters == "algo") {
        const std::string& algo = node["algo"].string();
        if (algo != "neox" && algo != "gptj") node["algo"].fail("expected neox or gptj");
        op.neox = algo == "neox";
    } else if (node.has("algo")) {
        node.fail("unknown key \"algo\"");
    }
}

Op read_op(const Node& node, const Sublayer& sublayer, Dtype dtype) {
    node.refuse_other_keys({"op", "tap", "out", "args", "epsilon", "alpha", "beta", "algo"});
    const std::string& name = node["op"].string();
    auto found = std::find_if(kRules.begin(), kRules.end(),
                              [&](const OpRule& known) { return known.name == name; });
    if (found == kRules.end()) node["op"].fail("unknown op " + quote(name));
    Op op{};
    op.kind = static_cast<OpKind>(found - kRules.begin());
    op.tap = node["tap"].string();
    op.out = read_view(node["out"], sublayer);
    std::vector<Node> args = node["args"].items();
    if (args.size() + 1 != found->views.size())
        node["args"].fail("expected " + std::to_string(found->views.size() - 1) + " views, got " +
                          std::to_string(args.size()));
    for (const Node& arg : args) op.args.push_back(read_view(arg, sublayer));
    read_parameters(op, node);
    check_views(op, node, sublayer, dtype);
    return op;
}

// What an op reads must have been loaded, or written by an op before it.
void check_flow(const Sublayer& sublayer, const Node& node) {
    std::vector<bool> written;
    for (const Tensor& tensor : sublayer.tensors) written.push_back(!tensor.loads.empty());
    auto require = [&](const View& view, const Op& op) {
        if (!written[view.tensor])
            node.fail("op " + quote(op.tap) + " reads tensor " +
                      quote(sublayer.tensors[view.tensor].name) +
                      " before anything has written it");
    };
    for (const Op& op : sublayer.ops) {
        for (const View& arg : op.args) require(arg, op);
        if (op.beta != 0) require(op.out, op);
        written[op.out.tensor] = true;
    }
    for (size_t i = 0; i < written.size(); ++i)
        if (!written[i] && sublayer.tensors[i].store)
            node.fail("tensor " + quote(sublayer.tensors[i].name) +
                      " is stored, but no op writes it");
}

Sublayer read_sublayer(const Node& node, const Plan& plan) {
    node.refuse_other_keys({"name", "tensors", "ops"});
    Sublayer sublayer{node["name"].string(), {}, {}};
    for (const Node& tensor : node["tensors"].items())
        sublayer.tensors.push_back(read_tensor(tensor, plan));
    for (const Node& op : node["ops"].items())
        sublayer.ops.push_back(read_op(op, sublayer, plan.dtype));
    check_flow(sublayer, node);
    return sublayer;
}

Json read_json(const std::string& path) {
    File file(path, false);
    std::string content(static_cast<size_t>(file.bytes()), '\0');
    try {
        file.read(content.data(), content.size(), 0);
    } catch (const SublayerError& error) {
        throw PlanError(error.what());
    }
    return parse_json(content);
}

}  // namespace

const char* op_name(OpKind kind) { return rule(kind).name; }

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

std::vector<int64_t> View::offsets(size_t dims) const {
    std::vector<int64_t> found{offset};
    for (size_t dim = 0; dim < dims; ++dim) {
        std::vector<int64_t> wider;
        wider.reserve(found.size() * static_cast<size_t>(shape[dim]));
        for (int64_t start : found)
            for (int64_t i = 0; i < shape[dim]; ++i) wider.push_back(start + i * strides[dim]);
        found = std::move(wider);
    }
    return found;
}

bool Op::reads_out() const {
    return beta != 0 || std::any_of(args.begin(), args.end(), [&](const View& arg) {
               return arg.tensor == out.tensor && arg.low <= out.high && out.low <= arg.high;
           });
}

Plan read_plan(const std::string& path) {
    Json json = read_json(path);
    Node node(json, "plan");
    if (int64_t version = node["protocol"].integer(0, kMaxInt); version != 1)
        node["protocol"].fail("expected 1, got " + std::to_string(version));
    node.refuse_other_keys({"protocol", "device", "device_id", "dtype", "repeat", "stop_on_failure",
                            "files", "sublayers"});
    Plan plan{};
    plan.device = node["device"].string();
    plan.device_id =
        node.has("device_id") ? static_cast<int>(node["device_id"].integer(0, 1 << 16)) : 0;
    plan.dtype = read_dtype(node["dtype"]);
    if (plan.dtype == Dtype::Float64 || !is_float(plan.dtype))
        node["dtype"].fail("expected float32, bfloat16 or float16");
    plan.repeat = node.has("repeat") ? static_cast<int>(node["repeat"].integer(1, 1 << 20)) : 1;
    plan.stop_on_failure = node.has("stop_on_failure") && node["stop_on_failure"].boolean();
    for (const Node& file : node["files"].items()) {
        file.refuse_other_keys({"path", "bytes", "write"});
        plan.files.emplace_back(file["path"].string(), file["write"].boolean());
        int64_t expected = file["bytes"].integer(0, kMaxInt), actual = plan.files.back().bytes();
        if (actual != expected)
            file.fail(quote(file["path"].string()) + ": expected " + std::to_string(expected) +
                      " bytes, got " + std::to_string(actual));
    }
    for (const Node& sublayer : node["sublayers"].items())
        plan.sublayers.push_back(read_sublayer(sublayer, plan));
    return plan;
}

}  // namespace goldenctl
