// Owns JSON text: a strict reader (RFC 8259, no duplicate keys, bounded nesting) and quoting.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace goldenctl {

struct Json {
    enum class Kind { Null, Boolean, Integer, Real, String, Array, Object };

    Kind kind = Kind::Null;
    bool boolean = false;
    int64_t integer = 0;  // a number without fraction and exponent
    double real = 0;      // any number
    std::string text;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;
};

// Throws PlanError with the byte offset at which the text stops being JSON. A lone surrogate
// \udc80..\udcff stands for one byte that is not UTF-8, as in Python's file names.
Json parse_json(std::string_view text);

// Returns `text` as a JSON string literal of printable ASCII, whatever the bytes are.
std::string quote(std::string_view text);

}  // namespace goldenctl
