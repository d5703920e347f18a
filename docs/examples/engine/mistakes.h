// Mistakes that ports make. `-DMISTAKE=theta` builds the engine with that one in it;
// `-DMISTAKE=any` builds one that takes it from the command line, `--mistake theta`.
#pragma once

#include <string>

#define ENGINE_MISTAKES(MISTAKE_ROW)                                                            \
    MISTAKE_ROW(other_layer, "the last layer's down_proj is the one of the layer before")       \
    MISTAKE_ROW(gate_up_swapped, "gate_proj and up_proj are joined in the wrong order")         \
    MISTAKE_ROW(norm_weight, "post_attention_layernorm multiplies by input_layernorm's weight") \
    MISTAKE_ROW(no_bias, "the bias of q, k and v is forgotten (Qwen2)")                         \
    MISTAKE_ROW(tied_head_ignored, "lm_head.weight is expected, and is not in the file")        \
    MISTAKE_ROW(epsilon, "the norms' epsilon is 1e-5, whatever config.json says")               \
    MISTAKE_ROW(theta, "RoPE's theta is 10000, whatever config.json says")                      \
    MISTAKE_ROW(no_q_norm, "q_norm is never called (Qwen3)")                                    \
    MISTAKE_ROW(no_final_norm, "the last norm is never called")                                 \
    MISTAKE_ROW(interleaved_rope, "RoPE turns pairs of neighbours instead of halves")           \
    MISTAKE_ROW(rope_twice, "queries are rotated twice")                                        \
    MISTAKE_ROW(keys_before_rope, "keys go into the cache before they are rotated")             \
    MISTAKE_ROW(position_restart, "positions start at 0 again with each decode step")           \
    MISTAKE_ROW(cache_one_early, "decode steps write the cache one slot early")                 \
    MISTAKE_ROW(shared_cache, "all layers write into one cache")                                \
    MISTAKE_ROW(prefill_mask, "decode steps see as many keys as they have tokens")              \
    MISTAKE_ROW(no_scale, "scores are not divided by the root of head_dim")                     \
    MISTAKE_ROW(scale_by_hidden, "head_dim is taken for hidden_size / heads in the scale")      \
    MISTAKE_ROW(head_repeat, "query head h reads key head h % kv_heads, not h / group")         \
    MISTAKE_ROW(values_from_keys, "probabilities are multiplied with the cached keys")          \
    MISTAKE_ROW(residual_from_normed, "attention's residual is the normed input")               \
    MISTAKE_ROW(stale_buffer, "the MLP reads attention's normed input, still in its buffer")    \
    MISTAKE_ROW(first_token_logits, "the logits are the first token's, not the last one's")

namespace engine {

enum class Mistake {
    none,
    any,
#define ENGINE_MISTAKE_NAME(name, meaning) name,
    ENGINE_MISTAKES(ENGINE_MISTAKE_NAME)
#undef ENGINE_MISTAKE_NAME
};

#ifndef MISTAKE
#define MISTAKE none
#endif
constexpr Mistake kBuiltIn = Mistake::MISTAKE;
inline Mistake chosen = Mistake::none;  // by the command line of a build with `any`

// Whether this run makes that mistake. In a build without mistakes the compiler removes it.
inline bool made(Mistake mistake) {
    return kBuiltIn == Mistake::any ? chosen == mistake : kBuiltIn == mistake;
}

// The mistake of that name; Mistake::none when there is none.
inline Mistake mistake_named(const std::string& name) {
#define ENGINE_MISTAKE_MATCH(each, meaning) \
    if (name == #each) return Mistake::each;
    ENGINE_MISTAKES(ENGINE_MISTAKE_MATCH)
#undef ENGINE_MISTAKE_MATCH
    return Mistake::none;
}

}  // namespace engine
