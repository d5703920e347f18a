#include "number.h"

#include <cmath>
#include <cstring>

#include "tensor.h"

namespace engine {
namespace {

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

float bfloat_to_float(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

uint16_t float_to_bfloat(float value) {
    uint32_t bits = bits_of(value);
    if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float half_to_float(uint16_t half) {
    uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7FFF;
    if (rest >= 0x7C00) return float_of(sign | 0x7F800000 | rest << 13);  // Inf, NaN
    // As a float's bits it is 2^112 too small, subnormal or not; the product is exact.
    return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
}

uint16_t float_to_half(float value) {
    uint32_t bits = bits_of(value), rest = bits & 0x7FFFFFFF;
    auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    if (rest > 0x7F800000) return sign | 0x7E00;
    if (rest >= 0x477FF000) return sign | 0x7C00;  // 65520 and more round to Inf
    if (rest < 0x38800000)  // subnormal: the sum's last bits count units of 2^-24
        return sign | static_cast<uint16_t>(bits_of(float_of(rest) + 0.5f) - bits_of(0.5f));
    return sign | static_cast<uint16_t>((rest - 0x38000000 + 0xFFF + (rest >> 13 & 1)) >> 13);
}

std::vector<float> to_float(const void* data, size_t count, infiniDtype_t dtype) {
    std::vector<float> values(count);
    if (dtype == INFINI_DTYPE_F32) {
        std::memcpy(values.data(), data, count * sizeof(float));
        return values;
    }
    auto* from = dtype == INFINI_DTYPE_BF16 ? bfloat_to_float : half_to_float;
    auto* bytes = static_cast<const char*>(data);
    for (size_t n = 0; n < count; ++n) {
        uint16_t bits;
        std::memcpy(&bits, bytes + n * sizeof bits, sizeof bits);
        values[n] = from(bits);
    }
    return values;
}

std::vector<char> from_float(const std::vector<float>& values, infiniDtype_t dtype) {
    std::vector<char> bytes(values.size() * dtype_bytes(dtype));
    if (dtype == INFINI_DTYPE_F32) {
        std::memcpy(bytes.data(), values.data(), bytes.size());
        return bytes;
    }
    auto* to = dtype == INFINI_DTYPE_BF16 ? float_to_bfloat : float_to_half;
    for (size_t n = 0; n < values.size(); ++n) {
        uint16_t bits = to(values[n]);
        std::memcpy(bytes.data() + n * sizeof bits, &bits, sizeof bits);
    }
    return bytes;
}

}  // namespace engine
