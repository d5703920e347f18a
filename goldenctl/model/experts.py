"""The keys of ``config.json`` that say which layers have experts, and how they are chosen."""

from __future__ import annotations

from typing import Any

from goldenctl.graph.config import ModelConfig
from goldenctl.model.fields import Fields, is_int

KEYS = frozenset(
    {
        "num_experts",
        "num_local_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "norm_topk_prob",
        "decoder_sparse_step",
        "mlp_only_layers",
    }
)


def read_experts(reader: Fields, layers: int, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ModelConfig; ``given`` is what ``config.json`` itself says.

    Raises DamagedError for what is of the wrong kind or contradicts itself.
    """
    number = "num_local_experts" if given.get("num_experts") is None else "num_experts"
    count = reader.size(number if given.get(number) is not None else "num_experts")
    local = given.get("num_local_experts")
    if local is not None and local != count:
        reader.fail("num_local_experts", f"{count} as in num_experts", local)
    choices = reader.size("num_experts_per_tok")
    if choices > count:
        reader.fail("num_experts_per_tok", f"at most num_experts {count}", choices)
    return {
        "num_experts": count,
        "num_experts_per_tok": choices,
        "moe_intermediate_size": reader.size("moe_intermediate_size"),
        "norm_topk_prob": reader.flag("norm_topk_prob"),
        "dense_layers": _dense(reader, layers),
    }


def _dense(reader: Fields, layers: int) -> tuple[int, ...]:
    """Return the layers without experts."""
    named = reader.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(is_int(x) and x >= 0 for x in named):
        reader.fail("mlp_only_layers", "an array of integers from 0", named)
    step = reader.size("decoder_sparse_step", default=1)
    return tuple(n for n in range(layers) if n in named or (n + 1) % step)


def experts_keys(config: ModelConfig) -> dict[str, Any]:
    """Return what ``config.json`` says of this, in Hugging Face's spelling."""
    return {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.moe_intermediate_size,
        "norm_topk_prob": config.norm_topk_prob,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(config.dense_layers),
    }
