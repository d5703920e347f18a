#include "kv_cache.h"

#include "mistakes.h"

namespace engine {

KvCache::KvCache(infiniDtype_t dtype, size_t kv_heads, size_t capacity, size_t head_dim)
    : keys_(dtype, {kv_heads, capacity, head_dim}),
      values_(dtype, {kv_heads, capacity, head_dim}) {}

void KvCache::append(Ops& ops, const Tensor& k, const Tensor& v, size_t past) const {
    size_t tokens = k.size(0), slot = past;
    if (made(Mistake::cache_one_early) && past > 0) slot = past - 1;
    ops.copy(keys_.slice(1, slot, tokens), k.permute({1, 0, 2}));
    ops.copy(values_.slice(1, slot, tokens), v.permute({1, 0, 2}));
}

}  // namespace engine
