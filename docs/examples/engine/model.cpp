#include "model.h"

#include <cmath>
#include <stdexcept>

#include "mistakes.h"
#include "number.h"

namespace engine {
namespace {

// x: [T, H, D] as [K, G, T, D], the G query heads of each key head together.
Tensor by_key_head(const Tensor& x, size_t key_heads) {
    size_t group = x.size(1) / key_heads;
    if (made(Mistake::head_repeat)) return x.split(1, group).permute({2, 1, 0, 3});
    return x.split(1, key_heads).permute({1, 2, 0, 3});
}

}  // namespace

Model::Model(Device& device, const Config& config, const Weights& weights, infiniDtype_t dtype,
             size_t capacity, size_t longest_step)
    : device_(device), ops_(device), config_(config), dtype_(dtype) {
    const size_t M = config.hidden, V = config.vocab;
    embedding_ = weights.load({"model.embed_tokens.weight"}, {V, M}, dtype);
    final_norm_ = weights.load({"model.norm.weight"}, {M}, dtype);
    if (!config.tied_head)
        lm_head_ = weights.load({"lm_head.weight"}, {V, M}, dtype);
    else if (made(Mistake::tied_head_ignored))
        lm_head_ = Tensor(dtype, {V, M});
    else
        lm_head_ = embedding_;
    for (size_t index = 0; index < config.layers; ++index) {
        layers_.push_back(load_layer(weights, index));
        caches_.emplace_back(dtype, config.kv_heads, capacity, config.head_dim);
    }
    load_rope_tables(capacity);
    allocate(capacity, longest_step);
}

Layer Model::load_layer(const Weights& weights, size_t index) const {
    const size_t M = config_.hidden, F = config_.intermediate, D = config_.head_dim;
    const size_t q_rows = config_.heads * D, qkv_rows = q_rows + 2 * config_.kv_heads * D;
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const std::string attn = prefix + "self_attn.", mlp = prefix + "mlp.";
    auto load = [&](const std::vector<std::string>& names, const Shape& shape) {
        return weights.load(names, shape, dtype_);
    };

    Layer layer;
    layer.input_norm = load({prefix + "input_layernorm.weight"}, {M});
    layer.qkv = load({attn + "q_proj.weight", attn + "k_proj.weight", attn + "v_proj.weight"},
                     {qkv_rows, M});
    if (config_.qkv_bias && !made(Mistake::no_bias))
        layer.qkv_bias =
            load({attn + "q_proj.bias", attn + "k_proj.bias", attn + "v_proj.bias"}, {qkv_rows});
    if (config_.qk_norm) {
        layer.q_norm = load({attn + "q_norm.weight"}, {D});
        layer.k_norm = load({attn + "k_norm.weight"}, {D});
    }
    layer.o = load({attn + "o_proj.weight"}, {M, q_rows});
    layer.post_norm = load({prefix + "post_attention_layernorm.weight"}, {M});
    layer.gate_up = load({mlp + "gate_proj.weight", mlp + "up_proj.weight"}, {2 * F, M});
    if (made(Mistake::gate_up_swapped))
        layer.gate_up = load({mlp + "up_proj.weight", mlp + "gate_proj.weight"}, {2 * F, M});
    layer.down = load({mlp + "down_proj.weight"}, {M, F});
    if (made(Mistake::norm_weight)) layer.post_norm = layer.input_norm;
    if (made(Mistake::other_layer) && index > 0 && index + 1 == config_.layers)
        layer.down = layers_.back().down;
    return layer;
}

void Model::load_rope_tables(size_t capacity) {
    const size_t half = config_.head_dim / 2;
    std::vector<float> sin(capacity * half), cos(capacity * half);
    for (size_t position = 0; position < capacity; ++position)
        for (size_t i = 0; i < half; ++i) {
            // The reference computes the angle in float32.
            float frequency = static_cast<float>(config_.rope_frequency[i]);
            float angle = static_cast<float>(position) * frequency;
            sin[position * half + i] = std::sin(angle);
            cos[position * half + i] = std::cos(angle);
        }
    sin_ = Tensor(dtype_, {capacity, half});
    cos_ = Tensor(dtype_, {capacity, half});
    sin_.load(from_float(sin, dtype_).data());
    cos_.load(from_float(cos, dtype_).data());
}

void Model::allocate(size_t capacity, size_t longest_step) {
    const size_t T = longest_step, M = config_.hidden, F = config_.intermediate;
    const size_t H = config_.heads, K = config_.kv_heads, D = config_.head_dim;
    room_.hidden = Tensor(dtype_, {T, M});
    room_.normed = Tensor(dtype_, {T, M});
    room_.qkv = Tensor(dtype_, {T, H + 2 * K, D});
    room_.queries = Tensor(dtype_, {K, H / K, T, D});
    room_.scores = Tensor(dtype_, {H, T, capacity});
    room_.heads = Tensor(dtype_, {K, H / K, T, D});
    room_.context = Tensor(dtype_, {T, H, D});
    room_.gate_up = Tensor(dtype_, {T, 2 * F});
    room_.activated = Tensor(dtype_, {T, F});
    room_.projected = Tensor(dtype_, {T, M});
    room_.logits = Tensor(dtype_, {1, config_.vocab});
    room_.positions = Tensor(INFINI_DTYPE_I32, {T});
}

std::vector<float> Model::forward(const std::vector<int32_t>& tokens) {
    const size_t T = tokens.size();
    check_tokens(tokens);
    Tensor hidden = room_.hidden.as({T, config_.hidden});
    set_positions(T);
    ops_.embedding(hidden, embedding_, tokens);
    for (size_t index = 0; index < layers_.size(); ++index) {
        const KvCache& cache = caches_[made(Mistake::shared_cache) ? 0 : index];
        attention(layers_[index], cache, hidden);
        mlp(layers_[index], hidden);
    }
    past_ += T;
    return head(hidden);
}

void Model::check_tokens(const std::vector<int32_t>& tokens) const {
    if (tokens.empty() || tokens.size() > room_.hidden.size(0) ||
        past_ + tokens.size() > sin_.size(0))
        throw std::runtime_error("the tokens do not fit");
    for (int32_t token : tokens)
        if (token < 0 || static_cast<size_t>(token) >= config_.vocab)
            throw std::runtime_error("token " + std::to_string(token) +
                                     " is not in the vocabulary");
}

void Model::set_positions(size_t tokens) {
    std::vector<int32_t> positions(tokens);
    size_t first = made(Mistake::position_restart) ? 0 : past_;
    for (size_t t = 0; t < tokens; ++t) positions[t] = static_cast<int32_t>(first + t);
    room_.positions.as({tokens}).load(positions.data());
}

// hidden: [T, M] += attention of it
void Model::attention(const Layer& layer, const KvCache& cache, const Tensor& hidden) {
    const size_t T = hidden.size(0), M = config_.hidden;
    const size_t H = config_.heads, K = config_.kv_heads, D = config_.head_dim;
    Tensor normed = room_.normed.as({T, M});
    ops_.rms_norm(normed, hidden, layer.input_norm, config_.epsilon);

    Tensor qkv = room_.qkv.as({T, H + 2 * K, D});
    ops_.linear(qkv.as({T, (H + 2 * K) * D}), normed, layer.qkv, layer.qkv_bias);
    Tensor q = qkv.slice(1, 0, H), k = qkv.slice(1, H, K), v = qkv.slice(1, H + K, K);
    if (layer.q_norm && !made(Mistake::no_q_norm))
        ops_.rms_norm(q, q, layer.q_norm, config_.epsilon);
    if (layer.k_norm) ops_.rms_norm(k, k, layer.k_norm, config_.epsilon);
    if (made(Mistake::keys_before_rope)) cache.append(ops_, k, v, past_);
    Tensor positions = room_.positions.as({T});
    ops_.rope(q, positions, sin_, cos_);
    if (made(Mistake::rope_twice)) ops_.rope(q, positions, sin_, cos_);
    ops_.rope(k, positions, sin_, cos_);
    if (!made(Mistake::keys_before_rope)) cache.append(ops_, k, v, past_);

    Tensor context = attend(q, cache);
    Tensor projected = room_.projected.as({T, M});
    ops_.linear(projected, context, layer.o);
    ops_.add(hidden, made(Mistake::residual_from_normed) ? normed : hidden, projected);
}

// q: [T, H, D] over the cache -> [T, H D]. The G query heads that share a key head are rows
// of one matrix, so that one product serves them: [K, G T, D] with [K, D, S].
Tensor Model::attend(const Tensor& q, const KvCache& cache) {
    const size_t T = q.size(0), H = config_.heads, K = config_.kv_heads, D = config_.head_dim;
    const size_t G = H / K, S = made(Mistake::prefill_mask) ? T : past_ + T;
    float width = static_cast<float>(made(Mistake::scale_by_hidden) ? config_.hidden / config_.heads
                                                                    : config_.head_dim);
    float scale = made(Mistake::no_scale) ? 1 : 1 / std::sqrt(width);

    Tensor queries = room_.queries.as({K, G, T, D});
    ops_.copy(queries, by_key_head(q, K));
    Tensor scores = room_.scores.as({K, G * T, S});
    ops_.gemm(scores, queries.as({K, G * T, D}), cache.keys(S).permute({0, 2, 1}), scale);
    ops_.causal_softmax(scores.as({H, T, S}));
    Tensor heads = room_.heads.as({K, G, T, D});
    Tensor values = made(Mistake::values_from_keys) ? cache.keys(S) : cache.values(S);
    ops_.gemm(heads.as({K, G * T, D}), scores, values, 1);
    Tensor context = room_.context.as({T, H, D});
    ops_.copy(by_key_head(context, K), heads);
    return context.as({T, H * D});
}

// hidden: [T, M] += mlp of it
void Model::mlp(const Layer& layer, const Tensor& hidden) {
    const size_t T = hidden.size(0), M = config_.hidden, F = config_.intermediate;
    Tensor normed = room_.normed.as({T, M});
    Tensor into = made(Mistake::stale_buffer) ? room_.projected.as({T, M}) : normed;
    ops_.rms_norm(into, hidden, layer.post_norm, config_.epsilon);
    Tensor gate_up = room_.gate_up.as({T, 2 * F});
    ops_.linear(gate_up, normed, layer.gate_up);
    Tensor activated = room_.activated.as({T, F});
    ops_.swiglu(activated, gate_up.slice(1, 0, F), gate_up.slice(1, F, F));
    Tensor projected = room_.projected.as({T, M});
    ops_.linear(projected, activated, layer.down);
    ops_.add(hidden, hidden, projected);
}

// Of the last token alone: no other's logits are needed to go on.
std::vector<float> Model::head(const Tensor& hidden) {
    const size_t T = hidden.size(0), M = config_.hidden;
    Tensor last = hidden.slice(0, made(Mistake::first_token_logits) ? 0 : T - 1, 1);
    Tensor normed = room_.normed.as({1, M});
    if (made(Mistake::no_final_norm))
        normed = last;
    else
        ops_.rms_norm(normed, last, final_norm_, config_.epsilon);
    ops_.linear(room_.logits, normed, lm_head_);
    device_.synchronize();
    std::vector<char> bytes(config_.vocab * dtype_bytes(dtype_));
    room_.logits.save(bytes.data());
    return to_float(bytes.data(), config_.vocab, dtype_);
}

}  // namespace engine
