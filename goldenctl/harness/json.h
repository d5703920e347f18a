// Owns JSON text: a strict reader (RFC 8259, no duplicate keys, bounded nesting) and quoting.
#pragma once

#include <cstdint>
#include <initializer_list>
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

// A value and its place in the document; what is not as asked for is a PlanError that names it.
class Node {
  public:
    Node(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}

    [[noreturn]] void fail(const std::string& cause) const;
    bool has(std::string_view key) const { return find(key) != nullptr; }
    Node operator[](const std::string& key) const;
    void refuse_other_keys(std::initializer_list<std::string_view> known) const;

    std::vector<Node> items() const;
    const std::string& string() const { return expect(Json::Kind::String, "a string").text; }
    bool boolean() const { return expect(Json::Kind::Boolean, "true or false").boolean; }
    double number() const;
    int64_t integer(int64_t low, int64_t high) const;
    std::vector<int64_t> integers(size_t max_count, int64_t low) const;

  private:
    const Json& expect(Json::Kind kind, const char* expected) const;
    const Json* find(std::string_view key) const;

    const Json* json_;
    std::string where_;
};

// Returns `text` as a JSON string literal of printable ASCII, whatever the bytes are.
std::string quote(std::string_view text);

}  // namespace goldenctl
