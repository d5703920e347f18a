"""Mistral: a sliding window in every layer, and no bias anywhere."""

from goldenctl.families.family import LLAMA_DEFAULTS, TINY, Family

FAMILY = Family(
    architecture="Mistral",
    window="always",
    defaults={
        **LLAMA_DEFAULTS,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    presets={
        # one key head for all query heads
        "mistral-tiny": {
            **TINY,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
        },
        "mistral-window-tiny": {**TINY, "sliding_window": 6},
    },
)
