#include "json.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace goldenctl {
namespace {

constexpr const char* kOfNumbers = "+-.0123456789Ee";

bool is_printable(char byte) { return byte >= 0x20 && byte < 0x7F; }

}  // namespace

void JsonReader::within(const std::string& step, const std::function<void()>& body) {
    size_t length = place_.size();
    place_ += step;
    body();
    place_.resize(length);
}

char JsonReader::next() {
    take_all(" \t\r\n");
    return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonReader::take(std::string_view wanted) {
    next();
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
}

void JsonReader::expect(const char* wanted) {
    if (!take(wanted)) fail("expected ", wanted, " at byte ", at_);
}

std::string JsonReader::take_all(const char* characters) {
    size_t start = at_;
    at_ = std::min(text_.find_first_not_of(characters, at_), text_.size());
    return text_.substr(start, at_ - start);
}

void JsonReader::object(const std::vector<Field>& fields) {
    std::vector<bool> seen(fields.size());
    auto read_member = [&] {
        std::string key = string();
        auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const Field& field) { return field.key == key; });
        if (found == fields.end()) fail("unknown key ", quote(key));
        auto index = static_cast<size_t>(found - fields.begin());
        if (seen[index]) fail("duplicate key ", quote(key));
        seen[index] = true;
        expect(":");
        within("." + key, found->read);
    };
    expect("{");
    if (!take("}")) {
        do read_member();
        while (take(","));
        expect("}");
    }
    for (size_t i = 0; i < fields.size(); ++i)
        if (fields[i].required && !seen[i]) fail("lacks ", quote(fields[i].key));
}

void JsonReader::array(const std::function<void()>& read_item) {
    size_t count = 0;
    expect("[");
    if (take("]")) return;
    do within(say('[', count++, ']'), read_item);
    while (take(","));
    expect("]");
}

std::string JsonReader::string() {
    expect("\"");
    size_t start = at_;
    while (is_printable(text_[at_]) && text_[at_] != '"' && text_[at_] != '\\') ++at_;
    if (text_[at_] != '"') fail("string of other than printable ASCII without escapes");
    return text_.substr(start, at_++ - start);
}

size_t JsonReader::choice(const std::vector<const char*>& names) {
    std::string name = string(), known;
    for (size_t i = 0; i < names.size(); ++i) {
        if (name == names[i]) return i;
        known += say(i ? ", " : "", names[i]);
    }
    fail(quote(name), " is none of ", known);
}

bool JsonReader::boolean() {
    bool value = take("true");
    if (!value && !take("false")) fail("expected true or false");
    return value;
}

double JsonReader::number() {
    next();
    std::string text = take_all(kOfNumbers);
    char* end = nullptr;
    double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end || !std::isfinite(value)) fail("expected a number");
    return value;
}

int64_t JsonReader::integer(int64_t low, int64_t high) {
    next();
    std::string text = take_all(kOfNumbers);
    char* end = nullptr;
    errno = 0;
    int64_t value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end) fail("expected an integer");
    if (errno || value < low || value > high) fail(text, " is not within ", low, " .. ", high);
    return value;
}

void JsonReader::end() {
    next();
    if (at_ < text_.size()) fail("text after the end of the document");
}

std::string quote(std::string_view text) {
    std::string quoted = "\"";
    for (char byte : text) {
        if (byte == '"' || byte == '\\') quoted += '\\';
        quoted += is_printable(byte) ? byte : '?';
    }
    return quoted + "\"";
}

std::string list(const std::vector<std::string>& values) {
    std::string joined;
    for (const std::string& value : values) joined += (joined.empty() ? "" : ", ") + value;
    return "[" + joined + "]";
}

std::string object(const std::vector<Member>& members) {
    std::string joined;
    for (const auto& [key, value] : members)
        joined += say(joined.empty() ? "" : ", ", quote(key), ": ", value);
    return "{" + joined + "}";
}

}  // namespace goldenctl
