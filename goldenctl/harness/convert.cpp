#include "convert.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "errors.h"

namespace goldenctl {
namespace {

struct DtypeInfo {
    const char* name;
    size_t bytes;
    bool is_float;
};

constexpr std::array<DtypeInfo, 6> kDtypes{{{"float16", 2, true},
                                            {"bfloat16", 2, true},
                                            {"float32", 4, true},
                                            {"float64", 8, true},
                                            {"int32", 4, false},
                                            {"int64", 8, false}}};

const DtypeInfo& info(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

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

float from_bfloat16(uint16_t bits) { return float_of(uint32_t{bits} << 16); }

float from_float16(uint16_t half) {
    uint32_t sign = uint32_t{half} >> 15 << 31;
    uint32_t exponent = half >> 10 & 0x1F, mantissa = half & 0x3FF;
    if (exponent == 0x1F) return float_of(sign | 0x7F800000 | mantissa << 13);
    if (exponent != 0) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // exact, subnormal or zero
    return float_of(sign | bits_of(magnitude));
}

// Rounds to odd: what was inexact keeps a set last bit, so that a second rounding to a type
// with two bits less or fewer gives what one rounding of the double would have given
// (Boldo and Melquiond, 2005).
float narrow_to_odd(double value) {
    float nearest = static_cast<float>(value);
    if (std::isnan(value) || static_cast<double>(nearest) == value) return nearest;
    uint32_t bits = bits_of(nearest);
    if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) bits -= 1;
    return float_of(bits | 1);
}

uint16_t to_bfloat16(float value) {
    uint32_t bits = bits_of(value);
    if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t to_float16(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return static_cast<uint16_t>(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
    if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // 65520 and above
    if (magnitude < 0x38800000) {                                              // below 2^-14
        float units = float_of(magnitude) * 0x1p24f;                           // exact
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(units)));
    }
    uint32_t rounded = magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | rounded >> 13);
}

template <typename T>
T load(const char* source, size_t index) {
    T value;
    std::memcpy(&value, source + index * sizeof(T), sizeof(T));
    return value;
}

template <typename T>
void put(char* target, size_t index, T value) {
    std::memcpy(target + index * sizeof(T), &value, sizeof(T));
}

template <typename Read>
void write_floats(Read read, char* target, Dtype to, size_t count) {
    switch (to) {
        case Dtype::Float16:
            for (size_t i = 0; i < count; ++i) put(target, i, to_float16(read(i)));
            return;
        case Dtype::Bfloat16:
            for (size_t i = 0; i < count; ++i) put(target, i, to_bfloat16(read(i)));
            return;
        default:
            for (size_t i = 0; i < count; ++i) put<float>(target, i, read(i));
    }
}

void narrow_integers(const char* source, char* target, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        auto value = load<int64_t>(source, i);
        if (value != static_cast<int32_t>(value))
            throw SublayerError("bad_input", "element " + std::to_string(i) + " is " +
                                                 std::to_string(value) + ", beyond int32");
        put(target, i, static_cast<int32_t>(value));
    }
}

}  // namespace

std::optional<Dtype> parse_dtype(std::string_view name) {
    for (size_t i = 0; i < kDtypes.size(); ++i)
        if (name == kDtypes[i].name) return static_cast<Dtype>(i);
    return std::nullopt;
}

const char* dtype_name(Dtype dtype) { return info(dtype).name; }
size_t dtype_bytes(Dtype dtype) { return info(dtype).bytes; }
bool is_float(Dtype dtype) { return info(dtype).is_float; }

bool can_convert(Dtype from, Dtype to) {
    if (from == to) return true;
    if (from == Dtype::Int64) return to == Dtype::Int32;
    return is_float(from) && is_float(to) && to != Dtype::Float64;
}

void convert(const void* source, Dtype from, void* target, Dtype to, size_t count) {
    auto* in = static_cast<const char*>(source);
    auto* out = static_cast<char*>(target);
    if (from == to) {
        std::memcpy(out, in, count * dtype_bytes(to));
    } else if (from == Dtype::Int64) {
        narrow_integers(in, out, count);
    } else if (from == Dtype::Float16) {
        write_floats([&](size_t i) { return from_float16(load<uint16_t>(in, i)); }, out, to, count);
    } else if (from == Dtype::Bfloat16) {
        write_floats([&](size_t i) { return from_bfloat16(load<uint16_t>(in, i)); }, out, to,
                     count);
    } else if (from == Dtype::Float32) {
        write_floats([&](size_t i) { return load<float>(in, i); }, out, to, count);
    } else if (to == Dtype::Float32) {
        write_floats([&](size_t i) { return static_cast<float>(load<double>(in, i)); }, out, to,
                     count);
    } else {
        write_floats([&](size_t i) { return narrow_to_odd(load<double>(in, i)); }, out, to, count);
    }
}

}  // namespace goldenctl
