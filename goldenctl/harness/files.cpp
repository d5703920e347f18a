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

// Calls `move(done)`, which moves some of the bytes after the first `done`, until all are moved.
template <typename Move>
void move_all(const std::string& what, size_t bytes, Move move) {
    for (size_t done = 0; done < bytes;) {
        ssize_t moved = move(done);
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0) throw SublayerError("io", what + " failed: " + std::strerror(errno));
        if (moved == 0) throw SublayerError("io", what + " failed: the file has ended");
        done += static_cast<size_t>(moved);
    }
}

}  // namespace

File::File(std::string path, bool write) : path_(std::move(path)), write_(write) {
    if (path_.find('\0') != path_.npos) throw PlanError(quote(path_) + ": not a file name");
    descriptor_ = ::open(path_.c_str(), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0)
        throw PlanError(quote(path_) + ": cannot be opened: " + std::strerror(errno));
    struct stat status{};
    bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    bytes_ = status.st_size;
    if (regular) return;
    ::close(descriptor_);
    throw PlanError(quote(path_) + ": not a regular file");
}

File::~File() { ::close(descriptor_); }

void File::read(char* target, size_t bytes, int64_t offset) const {
    move_all(quote(path_) + ": read", bytes, [&](size_t done) {
        return ::pread(descriptor_, target + done, bytes - done, offset + static_cast<off_t>(done));
    });
}

void File::write(const char* source, size_t bytes, int64_t offset) const {
    move_all(quote(path_) + ": write", bytes, [&](size_t done) {
        return ::pwrite(descriptor_, source + done, bytes - done,
                        offset + static_cast<off_t>(done));
    });
}

}  // namespace goldenctl
