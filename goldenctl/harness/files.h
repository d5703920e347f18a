// Owns the files of a plan: opened once, checked once, read and written by offset.
//
// pread and pwrite, not a mapping: a file that shrinks under us, or a full disk, is then an
// error of one sublayer (`io`) and not a SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace goldenctl {

class File {
  public:
    // Throws PlanError unless `path` is a regular file of exactly `bytes` bytes.
    File(std::string path, int64_t bytes, bool write);
    ~File();
    File(File&& other) noexcept;
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    int64_t bytes() const { return bytes_; }
    bool writable() const { return write_; }

    // Both move all of `bytes` or throw SublayerError `io`.
    void read(void* target, size_t bytes, int64_t offset) const;
    void write(const void* source, size_t bytes, int64_t offset) const;

  private:
    std::string path_;
    int64_t bytes_;
    bool write_;
    int descriptor_ = -1;
};

// The whole of a small file; throws PlanError when it cannot be read or exceeds `limit` bytes.
std::string read_text(const std::string& path, size_t limit);

}  // namespace goldenctl
