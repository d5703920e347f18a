"""Llama: biases where the config asks for them, scaled rotary embeddings."""

from goldenctl.families.family import LLAMA_DEFAULTS, TINY, Family

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

FAMILY = Family(
    architecture="Llama",
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    mlp_bias="mlp_bias",
    defaults=LLAMA_DEFAULTS,
    presets={
        # llama3 scaling, with frequencies in all three of its bands
        "llama-tiny": {
            **TINY,
            "max_position_embeddings": 16384,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": _LLAMA3_ROPE,
        },
        # a bias on every linear layer, linear rope scaling, one query head per key head
        "llama-bias-tiny": {
            **TINY,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
    },
)
