#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

std::string cause() { return std::strerror(errno); }

int open_regular(const std::string& path, int flags, struct stat& status) {
    if (path.find('\0') != path.npos) throw PlanError(quote(path) + ": not a file name");
    int descriptor = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) throw PlanError(quote(path) + ": cannot be opened: " + cause());
    if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) return descriptor;
    ::close(descriptor);
    throw PlanError(quote(path) + ": not a regular file");
}

}  // namespace

File::File(std::string path, int64_t bytes, bool write)
    : path_(std::move(path)), bytes_(bytes), write_(write) {
    struct stat status{};
    descriptor_ = open_regular(path_, write ? O_RDWR : O_RDONLY, status);
    if (status.st_size == bytes) return;
    ::close(descriptor_);
    throw PlanError(quote(path_) + ": expected " + std::to_string(bytes) + " bytes, got " +
                    std::to_string(status.st_size));
}

File::~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      bytes_(other.bytes_),
      write_(other.write_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

void File::read(void* target, size_t bytes, int64_t offset) const {
    auto* at = static_cast<char*>(target);
    while (bytes > 0) {
        ssize_t moved = ::pread(descriptor_, at, bytes, offset);
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0) throw SublayerError("io", quote(path_) + ": read failed: " + cause());
        if (moved == 0)
            throw SublayerError("io", quote(path_) + ": ends at byte " + std::to_string(offset));
        at += moved, offset += moved, bytes -= static_cast<size_t>(moved);
    }
}

void File::write(const void* source, size_t bytes, int64_t offset) const {
    auto* at = static_cast<const char*>(source);
    while (bytes > 0) {
        ssize_t moved = ::pwrite(descriptor_, at, bytes, offset);
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0) throw SublayerError("io", quote(path_) + ": write failed: " + cause());
        at += moved, offset += moved, bytes -= static_cast<size_t>(moved);
    }
}

std::string read_text(const std::string& path, size_t limit) {
    struct stat status{};
    int descriptor = open_regular(path, O_RDONLY, status);
    ::close(descriptor);
    if (static_cast<uint64_t>(status.st_size) > limit)
        throw PlanError(quote(path) + ": larger than " + std::to_string(limit) + " bytes");
    std::string text(static_cast<size_t>(status.st_size), '\0');
    try {
        File(path, status.st_size, false).read(text.data(), text.size(), 0);
    } catch (const SublayerError& error) {
        throw PlanError(error.what());
    }
    return text;
}

}  // namespace goldenctl
