// The checkpoint's weights: safetensors files, mapped, one or several with an index.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor.h"

namespace engine {

class Weights {
  public:
    explicit Weights(const std::string& folder);

    bool has(const std::string& name) const { return entries_.count(name) > 0; }

    // The tensors of those names, joined along their first dimension, cast to `dtype`, on the
    // device. Throws std::runtime_error when one is missing or the shape is not as expected.
    Tensor load(const std::vector<std::string>& names, const Shape& shape,
                infiniDtype_t dtype) const;

  private:
    struct Entry {
        infiniDtype_t dtype;
        Shape shape;
        const char* data;  // in a mapped file
        size_t bytes;
    };

    void open(const std::string& path);

    std::vector<std::shared_ptr<const char>> files_;
    std::map<std::string, Entry> entries_;
};

}  // namespace engine
