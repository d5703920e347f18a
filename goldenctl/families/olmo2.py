"""OLMo2: norms behind each sublayer alone, queries and keys normed over all heads at once.

The rotation is computed in float32, by tables that are never rounded to the model's type.
"""

from goldenctl.families.family import LLAMA_DEFAULTS, TINY, Family
from goldenctl.graph.blocks import Style

FAMILY = Family(
    architecture="Olmo2",
    qk_norm=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    style=Style(
        attention_norms=(None, "post_attention_layernorm"),
        mlp_norms=(None, "post_feedforward_layernorm"),
        norm={"form": "once"},
        head_norm={"merged": True},
        float32_tables=True,
    ),
    defaults={**LLAMA_DEFAULTS, "vocab_size": 50304, "rms_norm_eps": 1e-5},
    presets={"olmo2-tiny": {**TINY, "rms_norm_eps": 1e-6, "rope_theta": 5e5}},
)
