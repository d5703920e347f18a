// The digests by which contents and rows of weights are told apart; trace/digest.py has the same.
//
// They are no proof against someone who wants two contents to look alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace goldenctl {

struct Digest {
    uint64_t low, high;
    bool operator==(const Digest& other) const { return low == other.low && high == other.high; }
};

// Mixes a word so that each of its bits changes about half of the result's.
inline uint64_t mixed(uint64_t word) {
    word = (word ^ (word >> 32)) * 0xD6E8FEB86659FD93ull;
    word = (word ^ (word >> 29)) * 0xA0761D6478BD642Full;
    return word ^ (word >> 32);
}

// Each word is mixed with its position, and the sums of all make the digest. Bytes beyond the
// last whole word count as one that is padded with zeros; the size counts, too.
inline Digest digest(const void* data, size_t bytes) {
    constexpr uint64_t step = 0x9E3779B97F4A7C15ull;
    const char* at = static_cast<const char*>(data);
    uint64_t low = 0, high = 0, key = step, odd = 1, word;
    auto take = [&] {
        uint64_t value = mixed(word + key);
        low += value, high += value * odd, key += step, odd += 2;
    };
    for (size_t words = bytes / 8; words > 0; --words, at += 8) std::memcpy(&word, at, 8), take();
    if (size_t rest = bytes % 8) word = 0, std::memcpy(&word, at, rest), take();
    return {mixed(low + bytes), mixed(high ^ bytes)};
}

}  // namespace goldenctl
