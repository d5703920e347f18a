#include "record.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace goldenctl {
namespace {

constexpr char kMagic[] = "goldenctl-log 1\n";
constexpr uint32_t kMark = 0x474C5443;

size_t padded(size_t bytes) { return (bytes + 7) / 8 * 8; }

constexpr std::array<uint32_t, 256> crc_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xEDB88320u ^ value >> 1 : value >> 1;
        table[i] = value;
    }
    return table;
}

uint32_t crc32(const std::string& text) {
    static constexpr auto table = crc_table();
    uint32_t sum = ~0u;
    for (unsigned char byte : text) sum = table[(sum ^ byte) & 255] ^ sum >> 8;
    return ~sum;
}

// Writes all of `parts`; returns errno, or 0.
int write_all(int file, iovec* parts, int count) {
    while (count > 0) {
        ssize_t written = ::writev(file, parts, count);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        size_t left = static_cast<size_t>(written);
        for (; count > 0 && left >= parts->iov_len; ++parts, --count) left -= parts->iov_len;
        if (count == 0) break;
        parts->iov_base = static_cast<char*>(parts->iov_base) + left;
        parts->iov_len -= left;
    }
    return 0;
}

}  // namespace

std::string quoted(std::string_view text) {
    std::string json = "\"";
    for (unsigned char byte : text) {
        if (byte == '"' || byte == '\\') json += '\\';
        if (byte >= ' ' && byte < 127)
            json += static_cast<char>(byte);
        else
            json += '?';
    }
    return json + '"';
}

void Header::add_raw(const char* key, const std::string& json) {
    text_ += text_.empty() ? '{' : ',';
    text_ += quoted(key) + ':' + json;
}

void Header::add(const char* key, std::string_view text) { add_raw(key, quoted(text)); }
void Header::add(const char* key, int64_t number) { add_raw(key, std::to_string(number)); }
void Header::add(const char* key, uint64_t number) { add_raw(key, std::to_string(number)); }
void Header::add(const char* key, bool truth) { add_raw(key, truth ? "true" : "false"); }

template <typename Number>
void Header::add_number(const char* key, Number number) {
    char digits[40];
    char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    std::string json(digits, end);
    if (!std::isfinite(number)) return add(key, std::string_view(json));  // JSON has no such
    if (json.find_first_of(".e") == std::string::npos) json += ".0";
    add_raw(key, json);
}

void Header::add(const char* key, double number) { add_number(key, number); }
void Header::add(const char* key, float number) { add_number(key, number); }

void Header::add(const char* key, const Digest& id) {
    constexpr char hex[] = "0123456789abcdef";
    char digits[32];
    auto bytes = reinterpret_cast<const unsigned char*>(&id);
    for (int i = 0; i < 16; ++i)
        digits[2 * i] = hex[bytes[i] >> 4], digits[2 * i + 1] = hex[bytes[i] & 15];
    add(key, std::string_view(digits, sizeof digits));
}

int Log::open(const std::string& path, uint64_t limit) {
    path_ = path, limit_ = limit;
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    iovec magic{const_cast<char*>(kMagic), sizeof kMagic - 1};
    error_ = file_ < 0 ? errno : write_all(file_, &magic, 1);
    size_ = sizeof kMagic - 1;
    return error_;
}

bool Log::append(const Header& header, const void* payload, size_t bytes) {
    std::string text = header.str();
    text.resize(padded(text.size()), ' ');
    struct {
        uint32_t mark, header_bytes;
        uint64_t payload_bytes, checksum;
    } frame{kMark, static_cast<uint32_t>(text.size()), bytes, crc32(text)};
    char zeros[8] = {};
    iovec parts[] = {{&frame, sizeof frame},
                     {text.data(), text.size()},
                     {const_cast<void*>(payload), bytes},
                     {zeros, padded(bytes) - bytes}};
    std::lock_guard<std::mutex> lock(mutex_);
    if (file_ < 0 || error_) return false;
    if ((error_ = write_all(file_, parts, 4)) == 0) {
        size_ += sizeof frame + text.size() + padded(bytes);
        return true;
    }
    [[maybe_unused]] int cut = ::ftruncate(file_, static_cast<off_t>(size_));
    std::fprintf(stderr, "goldenctl trace: %s: cannot be written (%s); the program goes on\n",
                 path_.c_str(), std::strerror(error_));
    return false;
}

void Log::forget() {
    if (file_ >= 0) ::close(file_);
    new (&mutex_) std::mutex;  // another thread of the parent may have held it
    file_ = -1, error_ = 0, size_ = 0;
}

}  // namespace goldenctl
