// Recognises the checkpoint's weights by the digests of their rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "digest.h"
#include "view.h"

namespace goldenctl {

// A tensor all of whose rows are the checkpoint's. Of a transposed one the digests are of its
// columns.
struct Recognised {
    Digest id;
    std::vector<uint64_t> digests;
    uint64_t row_bytes;
    bool transposed;
};

// The file that trace/weights.py writes: two counts, the sizes of rows in bytes in rising order,
// and the digests of all rows in rising order; all uint64.
class RowTable {
  public:
    // Maps the file; without one nothing is recognised. False when it is not such a file.
    bool open(const std::string& path);
    bool recognise(const char* packed, const Packing& packing, Recognised* found) const;
    // The same for bytes without a shape, which rows of one size make.
    bool recognise(const char* data, size_t bytes, Recognised* found) const;

  private:
    bool rows(const char* data, size_t count, size_t bytes, Recognised* found) const;
    bool columns(const char* data, const Packing& packing, Recognised* found) const;
    bool has_size(uint64_t bytes) const;
    bool has_row(uint64_t digest) const;
    const uint64_t *sizes_ = nullptr, *digests_ = nullptr;
    size_t size_count_ = 0, digest_count_ = 0;
};

}  // namespace goldenctl
