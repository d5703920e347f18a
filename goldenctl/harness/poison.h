// Owns the checks that an op wrote all of its output and nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "device.h"

namespace goldenctl {

// What unwritten memory is filled with. NaN is a signalling NaN: arithmetic quiets it, so only
// a copy can carry the pattern on. The finite ones serve engines that multiply old output by
// beta = 0.
enum class Pattern { NaN, Finite, OtherFinite };

// A tensor in device memory, filled with the NaN pattern and fenced by guards before and behind.
class FencedTensor {
  public:
    FencedTensor(const Engine& engine, size_t bytes, Dtype dtype);
    char* data() const;
    bool fences_intact(const Engine& engine) const;

  private:
    size_t bytes_;
    std::vector<char> guard_;
    DeviceMemory memory_;
};

// Watches the elements of one view of a tensor over a launch.
class OutputWatch {
  public:
    OutputWatch(const Engine& engine, const View& view, Dtype dtype, char* tensor);

    // Fills the view's elements with `pattern`, and nothing between them.
    void poison(Pattern pattern);

    // Reads back what was written; the other two speak of the last read.
    void read();
    std::vector<size_t> holding(Pattern pattern) const;  // flat indices, ascending
    bool stray() const;  // true when bytes between the elements changed

  private:
    size_t place(size_t i) const { return places_.empty() ? i * width_ : places_[i]; }

    const Engine& engine_;
    Dtype dtype_;
    size_t width_;                      // bytes of an element
    char* start_;                       // device address of the lowest element
    size_t count_;                      // elements
    std::vector<size_t> places_;        // bytes from `start_`, in index order; empty: dense
    std::vector<char> before_, after_;  // the extent, poisoned and after the launch
};

}  // namespace goldenctl
