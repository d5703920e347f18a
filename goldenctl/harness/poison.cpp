#include "poison.h"

#include <algorithm>
#include <cstring>

namespace goldenctl {
namespace {

constexpr size_t kGuardBytes = 256;  // keeps the alignment of the allocation
constexpr size_t kChunkBytes = size_t{1} << 20;

void fill(std::vector<char>& bytes, Dtype dtype, Pattern pattern) {
    uint32_t bits = pattern_bits(dtype, pattern);
    size_t step = std::min<size_t>(dtype_bytes(dtype), 4);
    for (size_t at = 0; at < bytes.size(); at += step) std::memcpy(&bytes[at], &bits, step);
}

}  // namespace

uint32_t pattern_bits(Dtype dtype, Pattern pattern) {
    static constexpr uint32_t half[] = {0x7DA5, 0x7BA5, 0x795A};
    static constexpr uint32_t brain[] = {0x7FA5, 0x5AA5, 0x4B5A};
    static constexpr uint32_t single[] = {0x7FA5A5A5, 0x5AA5A5A5, 0x4B5A5A5A};
    auto index = static_cast<size_t>(pattern);
    if (dtype == Dtype::Float16) return half[index];
    return dtype == Dtype::Bfloat16 ? brain[index] : single[index];
}

FencedTensor::FencedTensor(const Engine& engine, size_t bytes, Dtype dtype)
    : bytes_(bytes), guard_(kGuardBytes), memory_(bytes + 2 * kGuardBytes) {
    fill(guard_, dtype, Pattern::NaN);
    std::vector<char> chunk(std::min(kChunkBytes, bytes + 2 * kGuardBytes));
    fill(chunk, dtype, Pattern::NaN);
    engine.copy_in(memory_.data(), guard_.data(), kGuardBytes);
    for (size_t at = 0; at < bytes; at += chunk.size())
        engine.copy_in(data() + at, chunk.data(), std::min(chunk.size(), bytes - at));
    engine.copy_in(data() + bytes, guard_.data(), kGuardBytes);
}

char* FencedTensor::data() const { return memory_.data() + kGuardBytes; }

bool FencedTensor::fences_intact(const Engine& engine) const {
    std::vector<char> found(kGuardBytes);
    for (const char* fence : {memory_.data(), data() + bytes_}) {
        engine.copy_out(found.data(), fence, kGuardBytes);
        if (found != guard_) return false;
    }
    return true;
}

OutputWatch::OutputWatch(const Engine& engine, const View& view, Dtype dtype, char* tensor)
    : engine_(engine),
      element_bytes_(dtype_bytes(dtype)),
      dtype_(dtype),
      start_(tensor + static_cast<size_t>(view.low) * element_bytes_),
      count_(view.count()),
      before_(static_cast<size_t>(view.high - view.low + 1) * element_bytes_),
      after_(before_.size()) {
    if (view.contiguous()) return;
    offsets_ = {view.offset - view.low};
    for (size_t dim = 0; dim < view.shape.size(); ++dim) {
        std::vector<int64_t> wider;
        wider.reserve(offsets_.size() * static_cast<size_t>(view.shape[dim]));
        for (int64_t offset : offsets_)
            for (int64_t i = 0; i < view.shape[dim]; ++i)
                wider.push_back(offset + i * view.strides[dim]);
        offsets_ = std::move(wider);
    }
}

void OutputWatch::poison(Pattern pattern) {
    uint32_t bits = pattern_bits(dtype_, pattern);
    if (offsets_.empty()) {
        fill(before_, dtype_, pattern);
    } else {
        engine_.copy_out(before_.data(), start_, extent_bytes());
        for (int64_t offset : offsets_)
            std::memcpy(&before_[static_cast<size_t>(offset) * element_bytes_], &bits,
                        element_bytes_);
    }
    engine_.copy_in(start_, before_.data(), extent_bytes());
}

void OutputWatch::read() { engine_.copy_out(after_.data(), start_, extent_bytes()); }

std::vector<int64_t> OutputWatch::holding(Pattern pattern) const {
    uint32_t bits = pattern_bits(dtype_, pattern);
    std::vector<int64_t> found;
    for (int64_t i = 0; i < count_; ++i) {
        int64_t offset = offsets_.empty() ? i : offsets_[static_cast<size_t>(i)];
        const char* element = &after_[static_cast<size_t>(offset) * element_bytes_];
        if (std::memcmp(element, &bits, element_bytes_) == 0) found.push_back(i);
    }
    return found;
}

bool OutputWatch::stray() const {
    if (offsets_.empty()) return false;
    std::vector<char> expected = before_;
    for (int64_t offset : offsets_) {
        size_t at = static_cast<size_t>(offset) * element_bytes_;
        std::memcpy(&expected[at], &after_[at], element_bytes_);
    }
    return expected != after_;
}

}  // namespace goldenctl
