#include "poison.h"

#include <algorithm>
#include <cstring>

namespace goldenctl {
namespace {

constexpr size_t kGuardBytes = 256;  // keeps the alignment of the allocation
constexpr size_t kChunkBytes = size_t{1} << 20;

uint32_t pattern_bits(Dtype dtype, Pattern pattern) {
    static constexpr uint32_t half[] = {0x7DA5, 0x7BA5, 0x795A};
    static constexpr uint32_t brain[] = {0x7FA5, 0x5AA5, 0x4B5A};
    static constexpr uint32_t single[] = {0x7FA5A5A5, 0x5AA5A5A5, 0x4B5A5A5A};
    auto index = static_cast<size_t>(pattern);
    if (dtype == Dtype::Float16) return half[index];
    return dtype == Dtype::Bfloat16 ? brain[index] : single[index];
}

void fill(std::vector<char>& bytes, Dtype dtype, Pattern pattern) {
    uint32_t bits = pattern_bits(dtype, pattern);
    size_t step = std::min<size_t>(dtype_bytes(dtype), 4);
    for (size_t at = 0; at < bytes.size(); at += step) std::memcpy(&bytes[at], &bits, step);
}

}  // namespace

FencedTensor::FencedTensor(const Engine& engine, size_t bytes, Dtype dtype)
    : bytes_(bytes), guard_(kGuardBytes), memory_(allocate(bytes + 2 * kGuardBytes)) {
    fill(guard_, dtype, Pattern::NaN);
    std::vector<char> chunk(std::min(kChunkBytes, bytes));
    fill(chunk, dtype, Pattern::NaN);
    engine.copy_in(memory_.get(), guard_.data(), kGuardBytes);
    for (size_t at = 0; at < bytes; at += chunk.size())
        engine.copy_in(data() + at, chunk.data(), std::min(chunk.size(), bytes - at));
    engine.copy_in(data() + bytes, guard_.data(), kGuardBytes);
}

char* FencedTensor::data() const { return memory_.get() + kGuardBytes; }

bool FencedTensor::fences_intact(const Engine& engine) const {
    std::vector<char> found(kGuardBytes);
    for (const char* fence : {memory_.get(), data() + bytes_}) {
        engine.copy_out(found.data(), fence, kGuardBytes);
        if (found != guard_) return false;
    }
    return true;
}

OutputWatch::OutputWatch(const Engine& engine, const View& view, Dtype dtype, char* tensor)
    : engine_(engine),
      dtype_(dtype),
      width_(dtype_bytes(dtype)),
      start_(tensor + static_cast<size_t>(view.low) * width_),
      count_(static_cast<size_t>(view.count())),
      before_(static_cast<size_t>(view.high - view.low + 1) * width_),
      after_(before_.size()) {
    if (view.contiguous()) return;
    for (int64_t offset : view.offsets(view.shape.size()))
        places_.push_back(static_cast<size_t>(offset - view.low) * width_);
}

void OutputWatch::poison(Pattern pattern) {
    uint32_t bits = pattern_bits(dtype_, pattern);
    engine_.copy_out(before_.data(), start_, before_.size());
    for (size_t i = 0; i < count_; ++i) std::memcpy(&before_[place(i)], &bits, width_);
    engine_.copy_in(start_, before_.data(), before_.size());
}

void OutputWatch::read() { engine_.copy_out(after_.data(), start_, after_.size()); }

std::vector<size_t> OutputWatch::holding(Pattern pattern) const {
    uint32_t bits = pattern_bits(dtype_, pattern);
    std::vector<size_t> found;
    for (size_t i = 0; i < count_; ++i)
        if (std::memcmp(&after_[place(i)], &bits, width_) == 0) found.push_back(i);
    return found;
}

bool OutputWatch::stray() const {
    if (places_.empty()) return false;
    std::vector<char> expected = before_;
    for (size_t place : places_) std::memcpy(&expected[place], &after_[place], width_);
    return expected != after_;
}

}  // namespace goldenctl
