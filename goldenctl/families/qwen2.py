"""Qwen2: a bias on queries, keys and values."""

from goldenctl.families.family import QWEN_DEFAULTS, TINY, Family

FAMILY = Family(
    architecture="Qwen2",
    qkv_bias=True,
    window="qwen",
    defaults=QWEN_DEFAULTS,
    presets={"qwen2-tiny": {**TINY, "rope_theta": 1e6, "tie_word_embeddings": True}},
)
