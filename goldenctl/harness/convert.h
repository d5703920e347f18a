// Owns element types and the conversion between them on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace goldenctl {

enum class Dtype { Float16, Bfloat16, Float32, Float64, Int32, Int64 };

std::optional<Dtype> parse_dtype(std::string_view name);
const char* dtype_name(Dtype dtype);
size_t dtype_bytes(Dtype dtype);
bool is_float(Dtype dtype);

// True for float to float, integer to a same or smaller integer, and never between the two.
bool can_convert(Dtype from, Dtype to);

// Converts `count` elements. Floats round once, to nearest even; subnormals are kept and a NaN
// stays a NaN. Throws SublayerError `bad_input` when an int64 does not fit into an int32.
void convert(const void* source, Dtype from, void* target, Dtype to, size_t count);

}  // namespace goldenctl
