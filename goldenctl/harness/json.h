// JSON text: a strict reader of known fields, and quoting.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "errors.h"

namespace goldenctl {

// Reads one document from front to back into whatever its caller names. What is malformed, or
// not as asked for, is a PlanError that names its place.
class JsonReader {
  public:
    struct Field {
        const char* key;
        std::function<void()> read;
        bool required = true;
    };

    JsonReader(std::string text, std::string root) : text_(std::move(text)), place_(root) {}

    void object(const std::vector<Field>& fields);  // in any order, none twice, no others
    void array(const std::function<void()>& read_item);
    std::string string();  // printable ASCII without escapes: a plan writes others as %XX
    size_t choice(const std::vector<const char*>& names);  // index of the string among `names`
    bool boolean();
    double number();
    int64_t integer(int64_t low, int64_t high);
    void end();

    // Names the place: of what is being read or, after that, of what `within` has stepped into.
    // A line stays a line that can be read, however long the plan's names and numbers are.
    template <typename... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw PlanError(say(place_, ": ", parts...).substr(0, 500));
    }
    void within(const std::string& step, const std::function<void()>& body);

  private:
    char next();  // the character after space, which is not taken; 0 at the end
    bool take(std::string_view wanted);
    void expect(const char* wanted);
    std::string take_all(const char* characters);

    std::string text_, place_;
    size_t at_ = 0;
};

// Values as JSON text. Of a string, what is not printable ASCII becomes `?`.
std::string quote(std::string_view text);
std::string list(const std::vector<std::string>& values);
using Member = std::pair<std::string, std::string>;  // key, value as JSON
std::string object(const std::vector<Member>& members);

}  // namespace goldenctl
