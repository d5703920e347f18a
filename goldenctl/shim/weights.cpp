#include "weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace goldenctl {
namespace {

// Columns that are gathered at once: so many items of a row share a cache line.
constexpr size_t kColumns = 32;

Digest identity(const Recognised& found) {
    Digest id = digest(found.digests.data(), found.digests.size() * 8);
    return {mixed(id.low + found.row_bytes), mixed(id.high + (found.transposed ? 2 : 1))};
}

}  // namespace

bool RowTable::open(const std::string& path) {
    int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    struct stat status{};
    ::fstat(file, &status);
    auto words = static_cast<uint64_t>(status.st_size) / 8;
    void* data =
        words < 2 ? MAP_FAILED : ::mmap(nullptr, words * 8, PROT_READ, MAP_PRIVATE, file, 0);
    ::close(file);
    if (data == MAP_FAILED) return false;
    auto table = static_cast<const uint64_t*>(data);
    if (table[0] > words - 2 || table[1] != words - 2 - table[0]) return false;
    size_count_ = table[0], digest_count_ = table[1];
    sizes_ = table + 2, digests_ = sizes_ + size_count_;
    return true;
}

bool RowTable::has_size(uint64_t bytes) const {
    return std::binary_search(sizes_, sizes_ + size_count_, bytes);
}

bool RowTable::has_row(uint64_t digest) const {
    return std::binary_search(digests_, digests_ + digest_count_, digest);
}

bool RowTable::recognise(const char* packed, const Packing& packing, Recognised* found) const {
    if (packing.count == 0 || packing.sizes.empty()) return false;
    size_t row = static_cast<size_t>(packing.sizes.back()) * packing.item;
    if (rows(packed, packing.bytes() / row, row, found)) return true;
    return packing.sizes.size() == 2 && columns(packed, packing, found);
}

bool RowTable::recognise(const char* data, size_t bytes, Recognised* found) const {
    for (size_t at = size_count_; at > 0; --at)
        if (bytes && bytes % sizes_[at - 1] == 0 &&
            rows(data, bytes / sizes_[at - 1], sizes_[at - 1], found))
            return true;
    return false;
}

bool RowTable::rows(const char* data, size_t count, size_t bytes, Recognised* found) const {
    if (!has_size(bytes)) return false;
    found->digests.clear();
    for (size_t row = 0; row < count; ++row) {
        uint64_t sum = digest(data + row * bytes, bytes).low;
        if (!has_row(sum)) return false;
        found->digests.push_back(sum);
    }
    found->row_bytes = bytes, found->transposed = false, found->id = identity(*found);
    return true;
}

bool RowTable::columns(const char* data, const Packing& packing, Recognised* found) const {
    auto height = static_cast<size_t>(packing.sizes[0]),
         width = static_cast<size_t>(packing.sizes[1]);
    size_t item = packing.item, bytes = height * item;
    if (!has_size(bytes)) return false;
    found->digests.clear();
    std::vector<char> gathered(bytes * kColumns);
    for (size_t start = 0, count; start < width; start += count) {
        // The first column alone says whether it is worth the rest.
        count = start == 0 ? 1 : std::min(kColumns, width - start);
        for (size_t row = 0; row < height; ++row)
            for (size_t column = 0; column < count; ++column)
                std::memcpy(gathered.data() + column * bytes + row * item,
                            data + (row * width + start + column) * item, item);
        for (size_t column = 0; column < count; ++column) {
            uint64_t sum = digest(gathered.data() + column * bytes, bytes).low;
            if (!has_row(sum)) return false;
            found->digests.push_back(sum);
        }
    }
    found->row_bytes = bytes, found->transposed = true, found->id = identity(*found);
    return true;
}

}  // namespace goldenctl
