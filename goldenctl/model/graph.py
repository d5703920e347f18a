"""The graph of a model: every sublayer as a list of ops over named tensors.

The reference executes these lists, a plan binds them to bytes, a fault transforms them,
and a report orders its findings by them. Which blocks a decoder has its family says.
"""

from __future__ import annotations

from collections.abc import Iterator

from goldenctl.dtypes import DTYPES
from goldenctl.families import FAMILIES
from goldenctl.graph.blocks import (
    Pass,
    attention,
    embedding,
    final_norm,
    lm_head,
    mlp,
    with_fused_attention,
)
from goldenctl.graph.config import ModelConfig
from goldenctl.graph.ops import (
    CACHE_LINKS,
    DIMS,
    FUSED_OP,
    FUSED_TAPS,
    TABLE_DIMS,
    Op,
    Sublayer,
    own_name,
    with_past,
)
from goldenctl.places import place_of

WINDOW = "window="

__all__ = [
    "CACHE_LINKS", "DIMS", "FUSED_OP", "FUSED_TAPS", "TABLE_DIMS", "WINDOW", "Op", "Sublayer",
    "constants", "decoder", "is_table", "own_name", "plan_inputs", "recorded_path", "sizes",
    "table_dtype", "with_fused_attention", "with_past",
]  # fmt: skip


def decoder(
    config: ModelConfig,
    *,
    logits: str = "last",
    past: bool = False,
    masked: bool = False,
    positions: int = 0,
) -> Iterator[Sublayer]:
    """Yield a decoder's sublayers in execution order.

    ``logits`` is ``last``, ``all`` or ``none`` (no lm_head); the others are as in ``Pass``.
    """
    style, step = FAMILIES[config.model_type].style, Pass(past, masked, positions)
    yield embedding(config, style)
    for layer in range(config.num_hidden_layers):
        yield attention(config, style, layer, step)
        yield mlp(config, style, layer)
    yield final_norm(config, style)
    if logits != "none":
        yield lm_head(config, last_only=logits == "last")


def constants(config: ModelConfig) -> tuple[str, ...]:
    """Return the names of the rotary tables that a model has."""
    kinds = ["rope"]
    kinds += ["rope_local"] if config.rope_local is not None else []
    kinds += ["rope_long"] if config.rope.rope_type == "longrope" else []
    return tuple(f"{kind}_{part}" for kind in kinds for part in ("cos", "sin"))


def table_dtype(config: ModelConfig, dtype: str) -> str:
    """Return the type of the rotary tables of a recording in ``dtype``."""
    wide = FAMILIES[config.model_type].style.float32_tables and DTYPES[dtype].itemsize == 2
    return "float32" if wide else dtype


def is_table(name: str) -> bool:
    """Whether a tensor's name is that of a rotary table."""
    return name.startswith("rope_")


def plan_inputs(op: Op) -> tuple[str, ...]:
    """Return what an op reads as a plan has it: the mask of a window is a tensor there."""
    window = op.attrs.get("window")
    return (*op.inputs, f"{WINDOW}{window}") if window else op.inputs


def sizes(config: ModelConfig, batch: int, token: int, past: int = 0) -> dict[str, int]:
    """Return the size of each dimension label for one step of a case."""
    experts = {
        "expert": config.num_experts,
        "choice": config.num_experts_per_tok,
        "moe_intermediate": config.moe_intermediate_size,
    }
    return {
        **(experts if config.num_experts else {}),
        "batch": batch,
        "token": token,
        "last_token": 1,
        "key_token": past + token,
        "hidden": config.hidden_size,
        "head": config.num_attention_heads,
        "kv_head": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate": config.intermediate_size,
        "vocab": config.vocab_size,
        "position": past + token,
        "rotary": config.rotary_dim // 2,
    }


def recorded_path(sublayer: str, name: str) -> str:
    """Return where a golden holds a tensor that an op of the sublayer at this path reads."""
    if is_table(name):
        return f"constants/{name}"
    if name == "token_ids":
        return f"{sublayer}/input"
    if name in ("position_ids", "attention_mask"):
        return f"{place_of(sublayer).step_path}/{name}"
    return f"{sublayer}/{name}"
