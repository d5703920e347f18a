#include "json.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "errors.h"

namespace goldenctl {
namespace {

constexpr int kMaxDepth = 32;

struct CodePoint {
    uint32_t code;
    size_t length;  // bytes; 0 when the text does not start with well-formed UTF-8
};

CodePoint decode_utf8(std::string_view text) {
    static constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    auto first = static_cast<unsigned char>(text[0]);
    if (first < 0x80) return {first, 1};
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC0 || first > 0xF4 || text.size() < length) return {0, 0};
    uint32_t code = first & (0x7Fu >> length);
    for (char next : text.substr(1, length - 1)) {
        if ((next & 0xC0) != 0x80) return {0, 0};
        code = code << 6 | (next & 0x3F);
    }
    bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    return {code, code < smallest[length] || code > 0x10FFFF || surrogate ? 0 : length};
}

void append_utf8(std::string& text, uint32_t code) {
    static constexpr uint32_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    text.push_back(static_cast<char>(lead[more] | code >> (6 * more)));
    while (more-- > 0) text.push_back(static_cast<char>(0x80 | (code >> (6 * more) & 0x3F)));
}

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json json = value(0);
        skip_space();
        if (at_ != text_.size()) fail("text after the end of the document");
        return json;
    }

  private:
    [[noreturn]] void fail(const std::string& cause) const {
        throw PlanError("not JSON at byte " + std::to_string(at_) + ": " + cause);
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }

    bool take(std::string_view wanted) {
        if (text_.substr(at_, wanted.size()) != wanted) return false;
        at_ += wanted.size();
        return true;
    }

    bool take_token(std::string_view wanted) {
        skip_space();
        return take(wanted);
    }

    void expect(std::string_view wanted) {
        if (!take_token(wanted)) fail("expected '" + std::string(wanted) + "'");
    }

    Json value(int depth) {
        if (depth > kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth));
        skip_space();
        Json json;
        if (take("{")) {
            json.kind = Json::Kind::Object;
            if (!take_token("}")) members(json, depth);
        } else if (take("[")) {
            json.kind = Json::Kind::Array;
            if (take_token("]")) return json;
            do json.items.push_back(value(depth + 1));
            while (take_token(","));
            expect("]");
        } else if (peek() == '"') {
            json.kind = Json::Kind::String;
            json.text = string();
        } else if (take("true")) {
            json.kind = Json::Kind::Boolean, json.boolean = true;
        } else if (take("false")) {
            json.kind = Json::Kind::Boolean;
        } else if (!take("null")) {
            number(json);
        }
        return json;
    }

    void members(Json& json, int depth) {
        do {
            skip_space();
            std::string key = string();
            for (const auto& member : json.members)
                if (member.first == key) fail("duplicate key " + quote(key));
            expect(":");
            json.members.emplace_back(std::move(key), value(depth + 1));
        } while (take_token(","));
        expect("}");
    }

    size_t digits() {
        size_t start = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        if (at_ == start) fail("expected a value");
        return at_ - start;
    }

    void number(Json& json) {
        size_t start = at_;
        take("-");
        bool leading_zero = peek() == '0';
        if (digits() > 1 && leading_zero) fail("number with a leading zero");
        size_t integer_end = at_;
        if (take(".")) digits();
        if (take("e") || take("E")) {
            if (!take("+")) take("-");
            digits();
        }
        json.kind = at_ == integer_end ? Json::Kind::Integer : Json::Kind::Real;
        const char *first = text_.data() + start, *last = text_.data() + at_;
        std::errc error = std::from_chars(first, last, json.real).ec;
        if (error == std::errc() && json.kind == Json::Kind::Integer)
            error = std::from_chars(first, last, json.integer).ec;
        if (error != std::errc()) fail("number out of range");
    }

    std::string string() {
        if (!take("\"")) fail("expected a string");
        std::string text;
        while (!take("\"")) {
            if (at_ == text_.size()) fail("string without an end");
            if (static_cast<unsigned char>(peek()) < 0x20) fail("control character in a string");
            if (take("\\")) {
                escape(text);
                continue;
            }
            size_t length = decode_utf8(text_.substr(at_)).length;
            if (length == 0) fail("string is not UTF-8");
            text.append(text_.substr(at_, length));
            at_ += length;
        }
        return text;
    }

    void escape(std::string& text) {
        static constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        if (take("u")) return unicode_escape(text);
        size_t index = names.find(peek());
        if (index == names.npos) fail("unknown escape");
        text.push_back(meanings[index]);
        ++at_;
    }

    void unicode_escape(std::string& text) {
        uint32_t code = hex4();
        if (code >= 0xDC80 && code <= 0xDCFF) {
            text.push_back(static_cast<char>(code - 0xDC00));
            return;
        }
        if (code >= 0xD800 && code <= 0xDFFF) {
            uint32_t low = code < 0xDC00 && take("\\u") ? hex4() : 0;
            if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(text, code);
    }

    uint32_t hex4() {
        uint32_t code = 0;
        std::string_view four = text_.substr(at_, 4);
        const char* end = std::from_chars(four.data(), four.data() + four.size(), code, 16).ptr;
        if (end != four.data() + 4) fail("bad \\u escape");
        at_ += 4;
        return code;
    }

    std::string_view text_;
    size_t at_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).document(); }

void Node::fail(const std::string& cause) const { throw PlanError(where_ + ": " + cause); }

const Json& Node::expect(Json::Kind kind, const char* expected) const {
    if (json_->kind != kind) fail(std::string("expected ") + expected);
    return *json_;
}

const Json* Node::find(std::string_view key) const {
    for (const auto& member : expect(Json::Kind::Object, "an object").members)
        if (member.first == key) return &member.second;
    return nullptr;
}

Node Node::operator[](const std::string& key) const {
    const Json* found = find(key);
    if (!found) fail("lacks \"" + key + "\"");
    return Node(*found, where_ + "." + key);
}

void Node::refuse_other_keys(std::initializer_list<std::string_view> known) const {
    for (const auto& member : json_->members)
        if (std::find(known.begin(), known.end(), member.first) == known.end())
            fail("unknown key " + quote(member.first));
}

std::vector<Node> Node::items() const {
    std::vector<Node> nodes;
    for (const Json& item : expect(Json::Kind::Array, "an array").items)
        nodes.emplace_back(item, where_ + "[" + std::to_string(nodes.size()) + "]");
    return nodes;
}

double Node::number() const {
    if (json_->kind != Json::Kind::Integer) expect(Json::Kind::Real, "a number");
    return json_->real;
}

int64_t Node::integer(int64_t low, int64_t high) const {
    int64_t value = expect(Json::Kind::Integer, "an integer").integer;
    if (value < low || value > high)
        fail(std::to_string(value) + " is not within " + std::to_string(low) + " .. " +
             std::to_string(high));
    return value;
}

std::vector<int64_t> Node::integers(size_t max_count, int64_t low) const {
    const auto& items = expect(Json::Kind::Array, "an array").items;
    if (items.empty() || items.size() > max_count)
        fail("expected 1 to " + std::to_string(max_count) + " dimensions, got " +
             std::to_string(items.size()));
    std::vector<int64_t> values;
    for (const Json& item : items) {
        if (item.kind != Json::Kind::Integer || item.integer < low)
            fail("expected integers" + std::string(low == 1 ? " of at least 1" : ""));
        values.push_back(item.integer);
    }
    return values;
}

std::string quote(std::string_view text) {
    std::string quoted = "\"";
    auto escape = [&](uint32_t unit) {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", unit & 0xFFFF);
        quoted += escaped;
    };
    while (!text.empty()) {
        auto [code, length] = decode_utf8(text);
        if (length == 0) {
            escape(0xDC00 + static_cast<unsigned char>(text[0]));
        } else if (code >= 0x10000) {
            escape(0xD800 + ((code - 0x10000) >> 10)), escape(0xDC00 + (code & 0x3FF));
        } else if (code < 0x20 || code >= 0x7F) {
            escape(code);
        } else {
            if (code == '"' || code == '\\') quoted.push_back('\\');
            quoted.push_back(text[0]);
        }
        text.remove_prefix(std::max<size_t>(length, 1));
    }
    return quoted + "\"";
}

}  // namespace goldenctl
