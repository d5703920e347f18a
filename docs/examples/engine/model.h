// A decoder of the Llama kind, computed by InfiniCore: Llama, Qwen2 and Qwen3.
//
// Shapes: T tokens of this step, S tokens so far, M hidden, H query heads, K key and value
// heads, G = H / K, D head_dim, F intermediate, V vocabulary.
#pragma once

#include <string>
#include <vector>

#include "config.h"
#include "kv_cache.h"
#include "ops.h"
#include "weights.h"

namespace engine {

struct Layer {
    Tensor input_norm;      // [M]
    Tensor qkv, qkv_bias;   // [(H + 2K) D, M]: q_proj, k_proj and v_proj joined; Qwen2's bias
    Tensor q_norm, k_norm;  // [D], Qwen3's
    Tensor o;               // [M, H D]
    Tensor post_norm;       // [M]
    Tensor gate_up;         // [2 F, M]: gate_proj and up_proj joined
    Tensor down;            // [M, F]
};

// Room for the activations of one step, as long as the longest step.
struct Activations {
    Tensor hidden;     // [T, M], the residual stream
    Tensor normed;     // [T, M]
    Tensor qkv;        // [T, H + 2K, D]
    Tensor queries;    // [K, G, T, D]
    Tensor scores;     // [H, T, S], then the probabilities
    Tensor heads;      // [K, G, T, D]
    Tensor context;    // [T, H, D]
    Tensor gate_up;    // [T, 2 F]
    Tensor activated;  // [T, F]
    Tensor projected;  // [T, M], what goes back into the residual stream
    Tensor logits;     // [1, V]
    Tensor positions;  // [T], int32
};

class Model {
  public:
    // For sequences of up to `capacity` tokens, of which each step brings up to `longest_step`.
    Model(Device& device, const Config& config, const Weights& weights, infiniDtype_t dtype,
          size_t capacity, size_t longest_step);

    // Runs the next tokens of the sequence; returns the last one's logits, [V]. Throws
    // std::runtime_error when they do not fit, or are not in the vocabulary.
    std::vector<float> forward(const std::vector<int32_t>& tokens);

  private:
    Layer load_layer(const Weights& weights, size_t index) const;
    void load_rope_tables(size_t capacity);
    void allocate(size_t capacity, size_t longest_step);
    void check_tokens(const std::vector<int32_t>& tokens) const;
    void set_positions(size_t tokens);

    void attention(const Layer& layer, const KvCache& cache, const Tensor& hidden);
    Tensor attend(const Tensor& q, const KvCache& cache);
    void mlp(const Layer& layer, const Tensor& hidden);
    std::vector<float> head(const Tensor& hidden);

    Device& device_;
    Ops ops_;
    Config config_;
    infiniDtype_t dtype_;
    Tensor embedding_, final_norm_, lm_head_;  // [V, M], [M], [V, M]
    Tensor sin_, cos_;                         // [positions, D / 2]
    std::vector<Layer> layers_;
    std::vector<KvCache> caches_;
    Activations room_;
    size_t past_ = 0;  // tokens in the caches
};

}  // namespace engine
