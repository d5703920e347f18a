// The log of one process: records that are appended whole, or not at all.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "digest.h"

namespace goldenctl {

// A JSON object that is written key by key; texts become ASCII.
class Header {
  public:
    explicit Header(const char* kind) { add("kind", kind); }
    Header() = default;
    void add(const char* key, std::string_view text);
    void add(const char* key, const char* text) { add(key, std::string_view(text)); }
    void add(const char* key, int64_t number);
    void add(const char* key, uint64_t number);
    void add(const char* key, double number);
    void add(const char* key, float number);  // the shortest digits that are this float
    void add(const char* key, bool truth);
    void add(const char* key, const Digest& id);
    void add_raw(const char* key, const std::string& json);  // `json` is a value
    std::string str() const { return text_.empty() ? "{}" : text_ + "}"; }

  private:
    template <typename Number>
    void add_number(const char* key, Number number);
    std::string text_;
};

std::string quoted(std::string_view text);

// Appends records to a file. Where that fails once, it says so once and writes no more.
class Log {
  public:
    // `limit` is the size in bytes at which contents end; 0 is none. Returns errno, or 0.
    int open(const std::string& path, uint64_t limit);
    bool append(const Header& header, const void* payload = nullptr, size_t bytes = 0);
    bool full() const { return limit_ && size_ > limit_; }  // contents are no longer wanted
    int error() const { return error_; }
    void forget();  // in a child process: the file is the parent's

  private:
    std::mutex mutex_;
    std::string path_;
    int file_ = -1;
    int error_ = 0;
    uint64_t size_ = 0, limit_ = 0;
};

}  // namespace goldenctl
