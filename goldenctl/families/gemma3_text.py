"""Gemma3, its text model: norms before and behind each sublayer, windows, two rotary tables."""

from goldenctl.families.family import TINY, Family
from goldenctl.graph.blocks import Style

FAMILY = Family(
    architecture="Gemma3",
    qk_norm=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    window="pattern",
    theta=1e6,
    local_theta=1e4,
    keys=frozenset({"query_pre_attn_scalar", "rope_local_base_freq", "sliding_window_pattern"}),
    values={"hidden_activation": ("gelu_pytorch_tanh",)},
    style=Style(
        attention_norms=("input_layernorm", "post_attention_layernorm"),
        mlp_norms=("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        norm={"form": "plus_one"},
        activation="geglu",
        scaled_embedding=True,
    ),
    defaults={
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    presets={
        # every third layer sees all tokens, the others five; the root of the width is no number
        # of a narrow type
        "gemma3-tiny": {
            **TINY,
            "hidden_size": 80,
            "head_dim": 32,
            "query_pre_attn_scalar": 48,
            "sliding_window": 5,
            "sliding_window_pattern": 3,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    },
)
