// Numbers on the host: 16-bit floats to float and back, rounded to nearest, ties to even.
#pragma once

#include <infinicore.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace engine {

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);
float bfloat_to_float(uint16_t bits);
uint16_t float_to_bfloat(float value);

// `count` elements at `data` as float, and floats as the bytes of another dtype.
std::vector<float> to_float(const void* data, size_t count, infiniDtype_t dtype);
std::vector<char> from_float(const std::vector<float>& values, infiniDtype_t dtype);

}  // namespace engine
