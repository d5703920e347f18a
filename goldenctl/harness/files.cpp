#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "errors.h"
#include "json.h"

namespace goldenctl {

File::File(const std::string& path, bool write) : name_(quote(path)) {
    descriptor_ = ::open(path.c_str(), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw PlanError(name_ + ": cannot be opened: " + std::strerror(errno));
    struct stat status{};
    bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    bytes_ = status.st_size;
    if (regular) return;
    ::close(descriptor_);
    throw PlanError(name_ + ": not a regular file");
}

File::~File() { ::close(descriptor_); }

void File::move(bool write, char* data, size_t bytes, int64_t offset) const {
    while (bytes > 0) {
        ssize_t moved = write ? ::pwrite(descriptor_, data, bytes, offset)
                              : ::pread(descriptor_, data, bytes, offset);
        if (moved < 0 && errno == EINTR) continue;
        if (moved <= 0)
            throw SublayerError("io", say(name_, write ? ": write" : ": read", " failed: ",
                                          moved < 0 ? std::strerror(errno) : "the file has ended"));
        data += moved, offset += moved, bytes -= static_cast<size_t>(moved);
    }
}

std::string decode_path(const std::string& path) {
    std::string bytes;
    for (size_t i = 0; i < path.size(); ++i) {
        bytes += path[i];
        if (path[i] != '%') continue;
        std::string digits = path.substr(i + 1, 2);
        bytes.back() = static_cast<char>(std::strtol(digits.c_str(), nullptr, 16));
        if (bytes.back() == '\0') throw PlanError(quote(path) + ": not a file name");
        i += 2;
    }
    return bytes;
}

}  // namespace goldenctl
