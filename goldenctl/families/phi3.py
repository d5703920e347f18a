"""Phi-3: projections that are stored as one, a window, rotary tables for long inputs."""

from goldenctl.families.family import LLAMA_DEFAULTS, TINY, Family

FAMILY = Family(
    architecture="Phi3",
    window="always",
    partial_rotary=1.0,
    keys=frozenset({"original_max_position_embeddings", "partial_rotary_factor"}),
    rope_names={"su": "longrope", "yarn": "longrope"},
    fused={
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    },
    defaults={
        **LLAMA_DEFAULTS,
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    },
    presets={
        # three quarters of each head rotated, other tables from position 8 on
        "phi3-tiny": {
            **TINY,
            "original_max_position_embeddings": 8,
            "sliding_window": 5,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5],
                "long_factor": [1.0, 1.5, 2.5, 6.0, 12.0, 24.0],
            },
        },
    },
)
