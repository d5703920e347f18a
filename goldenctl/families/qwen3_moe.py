"""Qwen3 with experts: a router chooses a few feed-forwards for each token."""

from goldenctl.families.family import QWEN_DEFAULTS, TINY, Family
from goldenctl.graph.blocks import Style
from goldenctl.graph.experts import experts

FAMILY = Family(
    architecture="Qwen3Moe",
    qk_norm=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    window="flag",
    experts=True,
    style=Style(feed_forward=experts),
    values={
        "hidden_act": ("silu", "swish"),
        "output_router_logits": (False, True, None),
        "router_aux_loss_coef": (0.001,),
    },
    defaults={
        **QWEN_DEFAULTS,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
    },
    presets={
        # two of eight experts for each token, but in the second layer
        "qwen3-moe-tiny": {
            **TINY,
            "head_dim": 32,
            "moe_intermediate_size": 48,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
        "qwen3-moe-plain-tiny": {
            **TINY,
            "moe_intermediate_size": 48,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "decoder_sparse_step": 2,
        },
    },
)
