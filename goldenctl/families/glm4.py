"""GLM-4: neighbours rotated on half of each head, four norms, gate and up stored as one."""

from goldenctl.families.family import LLAMA_DEFAULTS, TINY, Family
from goldenctl.graph.blocks import Style

FAMILY = Family(
    architecture="Glm4",
    qkv_bias="attention_bias",
    partial_rotary=0.5,
    keys=frozenset({"partial_rotary_factor"}),
    fused={"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")},
    style=Style(
        attention_norms=("input_layernorm", "post_self_attn_layernorm"),
        mlp_norms=("post_attention_layernorm", "post_mlp_layernorm"),
        rope="gptj",
    ),
    defaults={
        **LLAMA_DEFAULTS,
        "vocab_size": 151552,
        "intermediate_size": 13696,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-07,
        "attention_bias": True,
    },
    presets={"glm4-tiny": {**TINY, "head_dim": 32}},
)
