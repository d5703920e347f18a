#include "config.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "json.h"
#include "mistakes.h"

namespace engine {
namespace {

constexpr double kPi = 3.14159265358979323846;

[[noreturn]] void refuse(const std::string& what) {
    throw std::runtime_error("config.json: " + what);
}

Json read_json(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return parse_json({std::istreambuf_iterator<char>(file), {}});
}

size_t integer(const Json& json, const char* name) {
    if (json[name].is_null()) refuse(std::string(name) + " is missing");
    return json[name].integer();
}

bool flag(const Json& json, const char* name) {
    return !json[name].is_null() && json[name].boolean();
}

// Since transformers 5 theta is in rope_parameters, before that beside rope_scaling.
Json rope_parameters(const Json& json) {
    Json rope = json["rope_parameters"];
    if (rope.is_null()) rope = json["rope_scaling"];
    if (rope.is_null()) rope.value = Json::Object{};
    auto& members = std::get<Json::Object>(rope.value);
    if (!members.count("rope_theta")) members["rope_theta"] = json["rope_theta"];
    return rope;
}

// Llama 3.1's scaling: long waves are stretched by `factor`, short ones stay, and those in
// between go over smoothly.
double stretched(double frequency, const Json& rope) {
    double factor = rope["factor"].number(),
           original = rope["original_max_position_embeddings"].number();
    double low = rope["low_freq_factor"].number(), high = rope["high_freq_factor"].number();
    double turns = original * frequency / (2 * kPi);  // within the original context
    if (turns < low) return frequency / factor;
    if (turns > high) return frequency;
    double smooth = (turns - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
}

std::vector<double> rope_frequency(const Json& json, size_t head_dim) {
    Json rope = rope_parameters(json);
    const Json& type = rope["rope_type"];
    bool llama3 = !type.is_null() && type.string() == "llama3";
    if (!llama3 && !type.is_null() && type.string() != "default")
        refuse("rope_type " + type.string() + " is not supported");
    double theta = rope["rope_theta"].is_null() ? 1e4 : rope["rope_theta"].number();
    if (made(Mistake::theta)) theta = 1e4;
    std::vector<double> frequency(head_dim / 2);
    for (size_t i = 0; i < frequency.size(); ++i) {
        frequency[i] =
            std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        if (llama3) frequency[i] = stretched(frequency[i], rope);
    }
    return frequency;
}

std::string dtype_name(const Json& json) {
    const Json& name = json["dtype"].is_null() ? json["torch_dtype"] : json["dtype"];
    return name.is_null() ? "float32" : name.string();
}

void require_supported(const Config& config, const Json& json) {
    if (config.family != "qwen3" && config.family != "qwen2" && config.family != "llama")
        refuse("model_type " + config.family + " is not supported");
    if (flag(json, "attention_bias") || flag(json, "mlp_bias"))
        refuse("attention_bias and mlp_bias are not supported");
    if (flag(json, "use_sliding_window")) refuse("sliding windows are not supported");
    if (!config.kv_heads || config.heads % config.kv_heads || config.head_dim % 2)
        refuse("the sizes of attention do not fit together");
}

}  // namespace

Config read_config(const std::string& folder) {
    Json json = read_json(folder + "/config.json");
    Config config;
    config.family = json["model_type"].string();
    config.vocab = integer(json, "vocab_size");
    config.hidden = integer(json, "hidden_size");
    config.intermediate = integer(json, "intermediate_size");
    config.layers = integer(json, "num_hidden_layers");
    config.heads = integer(json, "num_attention_heads");
    config.kv_heads = integer(json, "num_key_value_heads");
    config.head_dim =
        json["head_dim"].is_null() ? config.hidden / config.heads : json["head_dim"].integer();
    config.epsilon = static_cast<float>(json["rms_norm_eps"].number());
    if (made(Mistake::epsilon)) config.epsilon = 1e-5f;
    config.max_positions = integer(json, "max_position_embeddings");
    config.tied_head = flag(json, "tie_word_embeddings");
    config.qk_norm = config.family == "qwen3";
    config.qkv_bias = config.family == "qwen2";
    config.dtype = dtype_name(json);
    require_supported(config, json);
    config.rope_frequency = rope_frequency(json, config.head_dim);
    return config;
}

}  // namespace engine
