// The files of a plan: opened once, checked once, read and written by offset.
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
    File(const std::string& path, bool write);
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    int64_t bytes() const { return bytes_; }

    // Both move all of `bytes` or throw SublayerError `io`.
    void read(char* to, size_t bytes, int64_t at) const { move(false, to, bytes, at); }
    void write(char* from, size_t bytes, int64_t at) const { move(true, from, bytes, at); }

  private:
    void move(bool write, char* data, size_t bytes, int64_t offset) const;

    std::string name_;
    int descriptor_;
    int64_t bytes_;
};

// Returns the path that a plan means, in which %XX stands for a byte. Throws PlanError.
std::string decode_path(const std::string& path);

}  // namespace goldenctl
