// Element types and the conversion between them on the host.
#pragma once

#include <cstddef>
#include <vector>

namespace goldenctl {

enum class Dtype { Float16, Bfloat16, Float32, Float64, Int32, Int64 };

const std::vector<const char*>& dtype_names();  // by their value
const char* dtype_name(Dtype dtype);
size_t dtype_bytes(Dtype dtype);

// True for the same type, float to float of at most 32 bits, and int64 to int32.
bool can_convert(Dtype from, Dtype to);

// Converts `count` elements. Floats round once, to nearest even; subnormals are kept and a NaN
// stays a NaN. Throws SublayerError `bad_input` when an int64 does not fit into an int32.
void convert(const char* source, Dtype from, char* target, Dtype to, size_t count);

}  // namespace goldenctl
