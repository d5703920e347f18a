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
    // Throws PlanError unless `path` is a regular file.
    File(std::string path, bool write);
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    int64_t bytes() const { return bytes_; }
    bool writable() const { return write_; }

    // Both move all of `bytes` or throw SublayerError `io`.
    void read(char* target, size_t bytes, int64_t offset) const;
    void write(const char* source, size_t bytes, int64_t offset) const;

  private:
    std::string path_;
    bool write_;
    int descriptor_ = -1;
    int64_t bytes_ = 0;
};

}  // namespace goldenctl
