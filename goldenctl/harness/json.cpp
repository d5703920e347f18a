#include "json.h"

#include <charconv>
#include <cstdio>

#include "errors.h"

namespace goldenctl {
namespace {

constexpr int kMaxDepth = 32;

// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 when there is none.
size_t utf8_length(std::string_view text) {
    auto byte = [&](size_t i) -> unsigned {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
    };
    unsigned first = byte(0);
    if (first < 0x80) return 1;
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4) return 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
    bool outside = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
    return overlong || outside ? 0 : length;
}

// The code point of one well-formed sequence.
uint32_t code_point(std::string_view sequence) {
    uint32_t code = 0;
    for (char character : sequence) {
        auto byte = static_cast<unsigned char>(character);
        if (sequence.size() == 1) return byte;
        code = byte >= 0xC0 ? byte & (0x7Fu >> sequence.size()) : code << 6 | (byte & 0x3F);
    }
    return code;
}

void append_utf8(std::string& text, uint32_t code) {
    auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    } else {
        put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F));
        put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    }
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

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(peek()) != text_.npos) ++at_;
    }

    bool accept(char wanted) {
        skip_space();
        if (at_ == text_.size() || peek() != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!accept(wanted)) fail(std::string("expected '") + wanted + "'");
    }

    Json value(int depth) {
        if (depth > kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth));
        skip_space();
        Json json;
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                json.kind = Json::Kind::String;
                json.text = string();
                return json;
            case 't':
                return word("true", Json::Kind::Boolean);
            case 'f':
                return word("false", Json::Kind::Boolean);
            case 'n':
                return word("null", Json::Kind::Null);
            default:
                return number();
        }
    }

    Json word(std::string_view wanted, Json::Kind kind) {
        if (text_.substr(at_, wanted.size()) != wanted) fail("expected a value");
        at_ += wanted.size();
        Json json;
        json.kind = kind;
        json.boolean = wanted == "true";
        return json;
    }

    Json array(int depth) {
        Json json;
        json.kind = Json::Kind::Array;
        expect('[');
        if (accept(']')) return json;
        do json.items.push_back(value(depth + 1));
        while (accept(','));
        expect(']');
        return json;
    }

    Json object(int depth) {
        Json json;
        json.kind = Json::Kind::Object;
        expect('{');
        if (accept('}')) return json;
        do {
            skip_space();
            std::string key = string();
            for (const auto& member : json.members)
                if (member.first == key) fail("duplicate key " + quote(key));
            expect(':');
            json.members.emplace_back(std::move(key), value(depth + 1));
        } while (accept(','));
        expect('}');
        return json;
    }

    size_t digits() {
        size_t start = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        if (at_ == start) fail("expected a value");
        return at_ - start;
    }

    Json number() {
        size_t start = at_;
        if (peek() == '-') ++at_;
        bool leading_zero = peek() == '0';
        if (digits() > 1 && leading_zero) fail("number with a leading zero");
        Json json;
        json.kind = Json::Kind::Integer;
        if (peek() == '.') json.kind = Json::Kind::Real, ++at_, digits();
        if (peek() == 'e' || peek() == 'E') {
            json.kind = Json::Kind::Real, ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        const char *first = text_.data() + start, *last = text_.data() + at_;
        std::errc error = std::from_chars(first, last, json.real).ec;
        if (error == std::errc() && json.kind == Json::Kind::Integer)
            error = std::from_chars(first, last, json.integer).ec;
        if (error != std::errc()) fail("number out of range");
        return json;
    }

    uint32_t hex4() {
        uint32_t code = 0;
        std::string_view four = text_.substr(at_, 4);
        auto [end, error] = std::from_chars(four.data(), four.data() + four.size(), code, 16);
        if (error != std::errc() || four.size() != 4 || end != four.data() + 4)
            fail("bad \\u escape");
        at_ += 4;
        return code;
    }

    void unicode_escape(std::string& text) {
        uint32_t code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {
            if (text_.substr(at_, 2) != "\\u") fail("half of a surrogate pair");
            at_ += 2;
            uint32_t low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC80 && code <= 0xDCFF) {
            text.push_back(static_cast<char>(code - 0xDC00));
            return;
        } else if (code >= 0xDC00 && code <= 0xDFFF) {
            fail("half of a surrogate pair");
        }
        append_utf8(text, code);
    }

    std::string string() {
        if (peek() != '"') fail("expected a string");
        ++at_;
        std::string text;
        while (peek() != '"') {
            if (at_ == text_.size()) fail("string without an end");
            if (static_cast<unsigned char>(peek()) < 0x20) fail("control character in a string");
            if (peek() == '\\') {
                ++at_;
                escape(text);
                continue;
            }
            size_t length = utf8_length(text_.substr(at_));
            if (length == 0) fail("string is not UTF-8");
            text.append(text_.substr(at_, length));
            at_ += length;
        }
        ++at_;
        return text;
    }

    void escape(std::string& text) {
        static constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        if (peek() == 'u') {
            ++at_;
            return unicode_escape(text);
        }
        size_t index = at_ < text_.size() ? names.find(peek()) : names.npos;
        if (index == names.npos) fail("unknown escape");
        text.push_back(meanings[index]);
        ++at_;
    }

    std::string_view text_;
    size_t at_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).document(); }

std::string quote(std::string_view text) {
    std::string quoted = "\"";
    auto escape = [&](uint32_t unit) {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", unit & 0xFFFF);
        quoted += escaped;
    };
    while (!text.empty()) {
        size_t length = utf8_length(text);
        uint32_t code = code_point(text.substr(0, length));
        if (length == 0) {
            escape(0xDC00 + static_cast<unsigned char>(text[0]));
        } else if (code == '"' || code == '\\') {
            quoted.append("\\").push_back(text[0]);
        } else if (code >= 0x20 && code < 0x7F) {
            quoted.push_back(text[0]);
        } else if (code < 0x10000) {
            escape(code);
        } else {
            escape(0xD800 + ((code - 0x10000) >> 10)), escape(0xDC00 + (code & 0x3FF));
        }
        text.remove_prefix(length == 0 ? 1 : length);
    }
    return quoted + "\"";
}

}  // namespace goldenctl
