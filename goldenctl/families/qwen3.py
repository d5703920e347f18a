"""Qwen3: norms on queries and keys, and heads of a size of their own."""

from goldenctl.families.family import QWEN_DEFAULTS, TINY, Family

_PUBLISHED = {
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

FAMILY = Family(
    architecture="Qwen3",
    qk_norm=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    window="qwen",
    defaults={**QWEN_DEFAULTS, "head_dim": 128},
    presets={
        # head_dim is not hidden / heads; untied
        "tiny": {**TINY, "head_dim": 32, "rope_theta": 1e6},
        # the published shapes, with random weights
        "qwen3-0.6b": {**_PUBLISHED, "hidden_size": 1024, "intermediate_size": 3072},
        "qwen3-1.7b": {**_PUBLISHED, "hidden_size": 2048, "intermediate_size": 6144},
    },
)
