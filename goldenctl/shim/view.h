// How the elements of a tensor lie in memory, and their packing in the order of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace goldenctl {

// What a tensor descriptor says, copied when it was made. `strides` count elements.
struct Tensor {
    const char* dtype = "";
    size_t item = 0;  // bytes of an element; 0 of an unknown dtype
    std::vector<int64_t> shape, strides;
};

// The axes of a view from the outermost in memory to the innermost, without those of size 1 or
// stride 0, as trace/layout.py has it. Byte strides may be negative.
struct Packing {
    explicit Packing(const Tensor& tensor);
    std::vector<int64_t> sizes, steps;  // steps in bytes
    size_t item;
    size_t count = 1;            // elements
    int64_t first = 0, end = 0;  // bytes from the pointer to the lowest and behind the highest
    size_t bytes() const { return count * item; }
    bool contiguous() const;  // its packing is what lies in memory
};

// Writes the packed elements of the view at `data` to `target`, of packing.bytes().
void pack(const Packing& packing, const char* data, char* target);

}  // namespace goldenctl
