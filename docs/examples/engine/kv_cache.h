// The keys and values of every token so far, of one layer.
#pragma once

#include "ops.h"
#include "tensor.h"

namespace engine {

class KvCache {
  public:
    KvCache(infiniDtype_t dtype, size_t kv_heads, size_t capacity, size_t head_dim);

    // Copies those of T more tokens, k and v: [T, K, D], into the slots from `past` on.
    void append(Ops& ops, const Tensor& k, const Tensor& v, size_t past) const;

    // Views of the first `count` slots: [K, count, D].
    Tensor keys(size_t count) const { return keys_.slice(1, 0, count); }
    Tensor values(size_t count) const { return values_.slice(1, 0, count); }

  private:
    Tensor keys_, values_;  // [K, capacity, D]: each head's slots are rows of one matrix
};

}  // namespace engine
