// Owns the plan: what docs/plan-protocol.md describes, as structs that are valid by construction.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "convert.h"
#include "files.h"

namespace goldenctl {

struct Storage {
    size_t file;     // index into Plan::files
    int64_t offset;  // bytes
    Dtype dtype;     // of the elements in the file
};

// What a file holds of a tensor: `count` elements, from element `first` of the tensor on.
struct Part {
    Storage from;
    int64_t first, count;
};

struct Tensor {
    std::string name;
    Dtype dtype;                 // on the device: the plan's, or int32
    std::vector<int64_t> shape;  // contiguous, row-major, no dimension is 0
    int64_t count;               // elements
    std::vector<Part> loads;     // in this order
    std::optional<Storage> store;

    size_t bytes() const { return static_cast<size_t>(count) * dtype_bytes(dtype); }
};

struct View {
    size_t tensor;                        // index into Sublayer::tensors
    int64_t offset;                       // elements
    std::vector<int64_t> shape, strides;  // elements
    int64_t low, high;                    // first and last element it reaches, inside the tensor

    bool contiguous() const;
    int64_t count() const;

    // Elements, from the tensor's first, at every index of the first `dims` dimensions, in order.
    std::vector<int64_t> offsets(size_t dims) const;
};

enum class OpKind { Gather, RmsNorm, Gemm, Rope, CausalSoftmax, Swiglu, Add, Mul, Rearrange, Sdpa };

const char* op_name(OpKind kind);

struct Op {
    OpKind kind;
    std::string tap;
    View out;
    std::vector<View> args;
    double epsilon = 0, alpha = 0, beta = 0;
    bool neox = false;  // rope: pair i with i + D/2, not 2i with 2i + 1

    // True when the result depends on what `out` held: beta is not 0, or an argument overlaps it.
    bool reads_out() const;
};

struct Sublayer {
    std::string name;
    std::vector<Tensor> tensors;
    std::vector<Op> ops;
};

struct Plan {
    std::string device;
    int device_id;
    Dtype dtype;
    int repeat;
    bool stop_on_failure;
    std::deque<File> files;  // a File never moves
    std::vector<Sublayer> sublayers;
};

// Reads and validates the whole plan and opens its files; throws PlanError naming the place.
Plan read_plan(const std::string& path);

}  // namespace goldenctl
