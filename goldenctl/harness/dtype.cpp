#include "dtype.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "errors.h"

namespace goldenctl {
namespace {

template <typename To, typename From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// Types as the bytes of a file; each reads itself as a double, exactly, and makes itself of one.
struct Half {
    uint16_t bits;
    operator double() const {
        uint32_t magnitude = bits & 0x7FFFu;
        float value = magnitude < 0x7C00 ? bits_as<float>(magnitude << 13) * 0x1p112F
                                         : bits_as<float>(0x7F800000u | magnitude << 13);
        return bits & 0x8000 ? -value : value;
    }
};

struct Brain {
    uint16_t bits;
    operator double() const { return bits_as<float>(uint32_t{bits} << 16); }
};

// Rounds to nearest even: to `digits` significant bits, fewer below 2^`lowest`, where subnormals
// begin. A large number added and subtracted again pushes the other bits out.
double rounded(double value, int digits, int lowest) {
    constexpr uint64_t exponent = 0x7FF0000000000000;
    double power = bits_as<double>(bits_as<uint64_t>(value) & exponent);  // 2^n, at most |value|
    double large = std::max(power, std::ldexp(1, lowest)) * std::ldexp(1.5, 53 - digits);
    return std::copysign(value + large - large, value);
}

void assign(float& to, double value) { to = static_cast<float>(value); }

void assign(Half& to, double value) {
    uint32_t magnitude = 0x7E00;  // NaN; 65536, the first too large, has the bits of infinity
    if (!std::isnan(value)) {
        double nearest = rounded(std::min(std::fabs(value), 65536.0), 11, -14);
        magnitude = bits_as<uint32_t>(static_cast<float>(nearest) * 0x1p-112F) >> 13;
    }
    to.bits = static_cast<uint16_t>((std::signbit(value) ? 0x8000 : 0) | magnitude);
}

void assign(Brain& to, double value) {
    double most = std::clamp(value, -0x1p128, 0x1p128);  // as a float, infinity
    auto nearest = static_cast<float>(rounded(most, 8, -126));
    to.bits = std::isnan(value) ? 0x7FC0 : static_cast<uint16_t>(bits_as<uint32_t>(nearest) >> 16);
}

void assign(int32_t& to, int64_t value) {
    to = static_cast<int32_t>(value);
    if (to != value) throw SublayerError("bad_input", say(value, " is beyond int32"));
}

template <typename From, typename To>
void convert_all(const char* source, char* target, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        From from;
        To to;
        std::memcpy(&from, source + i * sizeof from, sizeof from);
        assign(to, from);
        std::memcpy(target + i * sizeof to, &to, sizeof to);
    }
}

template <typename From>
void convert_floats(const char* source, char* target, Dtype to, size_t count) {
    if (to == Dtype::Float16) return convert_all<From, Half>(source, target, count);
    if (to == Dtype::Bfloat16) return convert_all<From, Brain>(source, target, count);
    convert_all<From, float>(source, target, count);
}

bool is_float(Dtype dtype) { return dtype <= Dtype::Float64; }

}  // namespace

const std::vector<const char*>& dtype_names() {
    static const std::vector<const char*> names{"float16", "bfloat16", "float32",
                                                "float64", "int32",    "int64"};
    return names;
}

const char* dtype_name(Dtype dtype) { return dtype_names()[static_cast<size_t>(dtype)]; }

size_t dtype_bytes(Dtype dtype) {
    constexpr size_t bytes[] = {2, 2, 4, 8, 4, 8};
    return bytes[static_cast<size_t>(dtype)];
}

bool can_convert(Dtype from, Dtype to) {
    if (from == to) return true;
    if (from == Dtype::Int64) return to == Dtype::Int32;
    return is_float(from) && is_float(to) && to != Dtype::Float64;
}

void convert(const char* source, Dtype from, char* target, Dtype to, size_t count) {
    if (from == to) {
        std::memcpy(target, source, count * dtype_bytes(to));
    } else if (from == Dtype::Int64) {
        convert_all<int64_t, int32_t>(source, target, count);
    } else if (from == Dtype::Float16) {
        convert_floats<Half>(source, target, to, count);
    } else if (from == Dtype::Bfloat16) {
        convert_floats<Brain>(source, target, to, count);
    } else if (from == Dtype::Float32) {
        convert_floats<float>(source, target, to, count);
    } else {
        convert_floats<double>(source, target, to, count);
    }
}

}  // namespace goldenctl
