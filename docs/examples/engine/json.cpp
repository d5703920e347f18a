#include "json.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace engine {
namespace {

template <typename T>
const T& as(const Json& json, const char* kind) {
    const T* found = std::get_if<T>(&json.value);
    if (!found) throw std::runtime_error(std::string("a JSON value is not ") + kind);
    return *found;
}

class Parser {
  public:
    explicit Parser(const std::string& text) : text_(text) {}

    Json document() {
        Json json = value();
        if (peek() != '\0' || at_ != text_.size()) fail("the end");
        return json;
    }

  private:
    [[noreturn]] void fail(const std::string& expected) const {
        throw std::runtime_error("JSON: expected " + expected + " at byte " + std::to_string(at_));
    }

    char peek() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
        return at_ < text_.size() ? text_[at_] : '\0';
    }

    bool take(char wanted) {
        if (peek() != wanted) return false;
        ++at_;
        return true;
    }

    void need(char wanted) {
        if (!take(wanted)) fail(std::string(1, wanted));
    }

    Json value() {
        if (++depth_ > kMostDepth) fail("fewer levels");
        Json json;
        switch (peek()) {
            case '{':
                json.value = object();
                break;
            case '[':
                json.value = array();
                break;
            case '"':
                json.value = string();
                break;
            default:
                json = word();
        }
        --depth_;
        return json;
    }

    Json::Object object() {
        Json::Object members;
        need('{');
        if (take('}')) return members;
        do {
            if (peek() != '"') fail("a name");
            std::string name = string();
            need(':');
            members[name] = value();
        } while (take(','));
        need('}');
        return members;
    }

    Json::Array array() {
        Json::Array items;
        need('[');
        if (take(']')) return items;
        do items.push_back(value());
        while (take(','));
        need(']');
        return items;
    }

    // The names that matter here are plain: an escape other than of one character stays as it is.
    std::string string() {
        std::string text;
        need('"');
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] != 'u') ++at_;
            text += text_[at_++];
        }
        if (at_ == text_.size()) fail("the end of a string");
        ++at_;
        return text;
    }

    Json word() {
        size_t end = text_.find_first_of(",]} \t\r\n", at_);
        std::string word = text_.substr(at_, end == std::string::npos ? end : end - at_);
        Json json;
        if (word == "true" || word == "false") {
            json.value = word == "true";
        } else if (word != "null") {
            char* after = nullptr;
            json.value = std::strtod(word.c_str(), &after);
            if (word.empty() || *after) fail("a value");
        }
        at_ += word.size();
        return json;
    }

    static constexpr int kMostDepth = 100;
    const std::string& text_;
    size_t at_ = 0;
    int depth_ = 0;
};

}  // namespace

bool Json::boolean() const { return as<bool>(*this, "true or false"); }
double Json::number() const { return as<double>(*this, "a number"); }
const std::string& Json::string() const { return as<std::string>(*this, "a string"); }
const Json::Array& Json::array() const { return as<Array>(*this, "an array"); }
const Json::Object& Json::object() const { return as<Object>(*this, "an object"); }

size_t Json::integer() const {
    double whole = number();
    if (!(whole >= 0 && whole < 1e15 && whole == std::floor(whole)))
        throw std::runtime_error("a JSON number is not a whole number from 0 on");
    return static_cast<size_t>(whole);
}

const Json& Json::operator[](const std::string& name) const {
    static const Json null;
    const Object& members = object();
    auto found = members.find(name);
    return found == members.end() ? null : found->second;
}

Json parse_json(const std::string& text) { return Parser(text).document(); }

}  // namespace engine
