"""Owns the shapes of the synthetic checkpoints: small ones for tests, real ones for speed."""

from __future__ import annotations

from typing import Any

from goldenctl.model.config import ModelConfig, parse_config

_TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "dtype": "bfloat16",
}
_QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# As in config.json. Each tiny one covers what its family has and the others have not.
PRESETS: dict[str, dict[str, Any]] = {
    # head_dim is not hidden / heads; q and k norms; untied
    "tiny": {**_TINY, "model_type": "qwen3", "head_dim": 32, "rope_theta": 1e6},
    # q, k, v biases; tied
    "qwen2-tiny": {
        **_TINY,
        "model_type": "qwen2",
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
    },
    # llama3 scaling, with frequencies in all three of its bands
    "llama-tiny": {
        **_TINY,
        "model_type": "llama",
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": _LLAMA3_ROPE,
    },
    # a bias on every linear layer, linear rope scaling, one query head per key head
    "llama-bias-tiny": {
        **_TINY,
        "model_type": "llama",
        "num_key_value_heads": 4,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    # one key head for all query heads
    "mistral-tiny": {
        **_TINY,
        "model_type": "mistral",
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
    # the published shapes, with random weights
    "qwen3-0.6b": {**_QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b": {**_QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
}


def preset_config(preset: str) -> ModelConfig:
    """Return the config of a preset; KeyError when there is none of that name."""
    return parse_config(PRESETS[preset], where=f"preset {preset}")
