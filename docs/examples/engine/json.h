// JSON text, as config.json and the headers of safetensors files have it, as a tree of values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace engine {

struct Json {
    using Array = std::vector<Json>;
    using Object = std::map<std::string, Json>;
    std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value;

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }

    // Each throws std::runtime_error when the value is of another kind.
    bool boolean() const;
    double number() const;
    size_t integer() const;  // a whole number that is not negative
    const std::string& string() const;
    const Array& array() const;
    const Object& object() const;

    // The member of that name, or null where there is none.
    const Json& operator[](const std::string& name) const;
};

// Throws std::runtime_error, naming the byte, when `text` is not one JSON document.
Json parse_json(const std::string& text);

}  // namespace engine
