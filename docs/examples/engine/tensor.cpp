#include "tensor.h"

#include <infinirt.h>

#include <algorithm>
#include <stdexcept>

#include "device.h"

namespace engine {
namespace {

std::shared_ptr<char> zeroed(size_t bytes) {
    void* memory = nullptr;
    check(infinirtMalloc(&memory, std::max<size_t>(bytes, 1)), "infinirtMalloc");
    std::shared_ptr<char> storage(static_cast<char*>(memory), infinirtFree);
    std::vector<char> zeros(std::min<size_t>(bytes, 1 << 20));
    for (size_t at = 0; at < bytes; at += zeros.size())
        check(infinirtMemcpy(storage.get() + at, zeros.data(), std::min(zeros.size(), bytes - at),
                             INFINIRT_MEMCPY_H2D),
              "infinirtMemcpy");
    return storage;
}

std::vector<ptrdiff_t> row_major(const Shape& shape) {
    std::vector<ptrdiff_t> strides(shape.size(), 1);
    for (size_t d = shape.size(); d-- > 1;)
        strides[d - 1] = strides[d] * static_cast<ptrdiff_t>(shape[d]);
    return strides;
}

size_t product(const Shape& shape) {
    size_t elements = 1;
    for (size_t size : shape) elements *= size;
    return elements;
}

}  // namespace

infiniDtype_t dtype_named(const std::string& name) {
    if (name == "float32" || name == "fp32") return INFINI_DTYPE_F32;
    if (name == "bfloat16" || name == "bf16") return INFINI_DTYPE_BF16;
    if (name == "float16" || name == "fp16") return INFINI_DTYPE_F16;
    throw std::runtime_error("unknown dtype " + name + "; there are fp32, bf16 and fp16");
}

size_t dtype_bytes(infiniDtype_t dtype) {
    return dtype == INFINI_DTYPE_F32 || dtype == INFINI_DTYPE_I32 ? 4 : 2;
}

Tensor::Tensor(infiniDtype_t dtype, const Shape& shape)
    : dtype(dtype),
      shape(shape),
      strides(row_major(shape)),
      storage_(zeroed(product(shape) * dtype_bytes(dtype))) {}

size_t Tensor::elements() const { return product(shape); }

Tensor Tensor::as(const Shape& wanted) const {
    if (strides != row_major(shape) || product(wanted) > elements())
        throw std::logic_error("a view does not fit its tensor");
    Tensor view = *this;
    view.shape = wanted;
    view.strides = row_major(wanted);
    return view;
}

Tensor Tensor::slice(size_t dimension, size_t start, size_t count) const {
    if (start + count > shape[dimension]) throw std::logic_error("a slice leaves its tensor");
    Tensor view = *this;
    view.shape[dimension] = count;
    view.offset_ += start * static_cast<size_t>(strides[dimension]);
    return view;
}

Tensor Tensor::split(size_t dimension, size_t count) const {
    Tensor view = *this;
    auto inner = shape[dimension] / count;
    auto at = static_cast<ptrdiff_t>(dimension);
    view.shape[dimension] = inner;
    view.shape.insert(view.shape.begin() + at, count);
    view.strides.insert(view.strides.begin() + at,
                        strides[dimension] * static_cast<ptrdiff_t>(inner));
    return view;
}

Tensor Tensor::permute(const std::vector<size_t>& order) const {
    Tensor view = *this;
    for (size_t d = 0; d < order.size(); ++d) {
        view.shape[d] = shape[order[d]];
        view.strides[d] = strides[order[d]];
    }
    return view;
}

Tensor Tensor::repeat(size_t count) const {
    Tensor view = *this;
    view.shape.insert(view.shape.begin(), count);
    view.strides.insert(view.strides.begin(), 0);
    return view;
}

void Tensor::load(const void* host) const {
    check(infinirtMemcpy(data(), host, elements() * dtype_bytes(dtype), INFINIRT_MEMCPY_H2D),
          "infinirtMemcpy to the device");
}

void Tensor::save(void* host) const {
    check(infinirtMemcpy(host, data(), elements() * dtype_bytes(dtype), INFINIRT_MEMCPY_D2H),
          "infinirtMemcpy to the host");
}

}  // namespace engine
