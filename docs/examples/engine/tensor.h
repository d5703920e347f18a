// Tensors in the device's memory: views of shared storage, with shape and strides.
#pragma once

#include <infinicore.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace engine {

using Shape = std::vector<size_t>;

infiniDtype_t dtype_named(const std::string& name);  // float32, bfloat16, float16, or fp32, ...
size_t dtype_bytes(infiniDtype_t dtype);

class Tensor {
  public:
    Tensor() = default;  // none: no data

    // Zeros. Several kernels read what they are about to overwrite.
    Tensor(infiniDtype_t dtype, const Shape& shape);

    explicit operator bool() const { return storage_ != nullptr; }
    char* data() const { return storage_.get() + offset_ * dtype_bytes(dtype); }
    size_t size(size_t dimension) const { return shape[dimension]; }
    size_t elements() const;

    // Views of the same elements.
    Tensor as(const Shape& shape) const;  // the first ones, in this shape; of a contiguous tensor
    Tensor slice(size_t dimension, size_t start, size_t count) const;
    Tensor split(size_t dimension, size_t count) const;  // into [count, size / count]
    Tensor permute(const std::vector<size_t>& order) const;
    Tensor repeat(size_t count) const;  // a new first dimension over the same elements

    // Host bytes in and out; both return when the bytes have arrived.
    void load(const void* host) const;
    void save(void* host) const;

    infiniDtype_t dtype = INFINI_DTYPE_INVALID;
    Shape shape;
    std::vector<ptrdiff_t> strides;  // in elements

  private:
    std::shared_ptr<char> storage_;
    size_t offset_ = 0;  // of the first element
};

}  // namespace engine
