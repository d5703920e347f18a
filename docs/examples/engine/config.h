// What config.json says of the model: its sizes and the constants of its ops.
#pragma once

#include <string>
#include <vector>

namespace engine {

struct Config {
    std::string family;  // qwen3, qwen2 or llama
    size_t vocab, hidden, intermediate, layers;
    size_t heads, kv_heads, head_dim;  // of attention; heads is a multiple of kv_heads
    float epsilon;                     // of every RMSNorm
    size_t max_positions;
    bool tied_head;                      // lm_head's weights are the embedding's
    bool qk_norm;                        // an RMSNorm over each head of q and k
    bool qkv_bias;                       // q_proj, k_proj and v_proj have a bias
    std::string dtype;                   // of the checkpoint: float32, bfloat16 or float16
    std::vector<double> rope_frequency;  // [head_dim / 2], radians per position
};

// Throws std::runtime_error when the folder's config.json is not of a model that runs here.
Config read_config(const std::string& folder);

}  // namespace engine
