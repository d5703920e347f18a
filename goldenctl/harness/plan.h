// The plan: what docs/plan-protocol.md describes, as structs that are valid by construction.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dtype.h"

namespace goldenctl {

struct PlanFile {
    std::string path;  // with %XX for bytes that are not printable ASCII
    int64_t bytes;     // the file's exact size
    bool write;        // stores may go there
};

// Elements of a tensor in a file.
struct Storage {
    size_t file;           // index into Plan::files
    int64_t offset;        // bytes
    Dtype dtype;           // of the elements in the file
    int64_t first, count;  // elements of the tensor
};

struct Tensor {
    std::string name;
    Dtype dtype;                 // on the device: the plan's, or int32
    int64_t count;               // elements, one beside the other
    std::vector<Storage> loads;  // in this order
    std::optional<Storage> store;

    size_t bytes() const { return static_cast<size_t>(count) * dtype_bytes(dtype); }
};

struct View {
    size_t tensor;                        // index into Sublayer::tensors
    int64_t offset;                       // elements
    std::vector<int64_t> shape, strides;  // elements
    int64_t low, high;                    // first and last element it reaches, inside the tensor

    // Calls `visit` with the element at each index of the first `dims` dimensions, in order.
    template <typename Visit>
    void each(size_t dims, const Visit& visit, size_t dim = 0, int64_t moved = 0) const {
        if (dim == dims) return visit(offset + moved);
        for (int64_t i = 0; i < shape[dim]; ++i)
            each(dims, visit, dim + 1, moved + i * strides[dim]);
    }
};

// What a view must be. `shape` has a letter per dimension: the same letter is the same size
// throughout an op, `d` is half of `D`, `S` at most `T`, `H` a multiple of `K`. A leading `*`
// stands for any outer dimensions, the same ones throughout an op. The last `dense` dimensions
// are contiguous.
struct ViewRule {
    std::string shape;
    size_t dense = 0;
    bool ids = false;  // int32
};

struct Op;
struct Launch;
struct Operand;
using Operands = std::vector<Operand>;  // out, then the args

// An op of plans: how a plan states it, and what makes it ready (nullptr: the engine has none).
struct OpKind {
    const char* name;
    std::string parameters;       // sorted, a space behind each
    std::vector<ViewRule> views;  // out, then the args
    Launch (*prepare)(const Op&, const Operands&);
};

struct Op {
    const OpKind* kind;
    std::string tap;
    std::vector<View> views;                   // out, then the args
    std::map<std::string, double> parameters;  // those of its kind; algo: 0 gptj, 1 neox

    const View& out() const { return views[0]; }
    // True when the result depends on what `out` held: beta is not 0, or an argument overlaps it.
    bool reads_out() const;
};

struct Sublayer {
    std::vector<Tensor> tensors;
    std::vector<Op> ops;
};

struct Plan {
    std::string device;
    int device_id = 0;
    Dtype dtype;
    int repeat = 1;
    bool stop_on_failure = false;
    std::vector<PlanFile> files;
    std::vector<Sublayer> sublayers;
};

// Parses and validates a whole plan of ops in `kinds`, which outlive it, without looking at its
// files or at any device; throws PlanError naming the place.
Plan parse_plan(std::string text, const std::vector<OpKind>& kinds);

}  // namespace goldenctl
