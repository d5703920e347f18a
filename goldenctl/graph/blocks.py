"""Blocks of a decoder: attention, feed-forward and what stands around them, as lists of ops.

What families differ in is data, a ``Style``; a family with another structure has a block of
its own, made of the functions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from goldenctl.graph.config import ModelConfig
from goldenctl.graph.ops import FUSED_TAPS, Op, Sublayer, with_past

# The norms before and behind a sublayer's own ops, each by the name of its tap and weight.
Norms = tuple[str | None, str | None]


@dataclass(frozen=True)
class Pass:
    """What of a forward pass the graph depends on.

    ``past`` reads keys and values of earlier steps too, ``masked`` hides padding tokens,
    ``positions`` is the largest position and one: tables for long inputs start there.
    """

    past: bool = False
    masked: bool = False
    positions: int = 0


@dataclass(frozen=True)
class Style:
    """What a family's modeling code does, whatever its config says.

    ``norm`` are the attributes of every RMSNorm beside its epsilon: ``form`` is ``once`` where
    it rounds after the weight alone, ``plus_one`` where it multiplies by 1 + w, else it rounds
    before and after. ``head_norm`` are further ones of q_norm and k_norm: ``merged`` norms all
    heads as one row. ``rope`` pairs ``neox`` halves or ``gptj`` neighbours, by tables that with
    ``float32_tables`` are not rounded to a narrower type. ``activation`` is
    the op that joins gate and up. ``scaled_embedding`` multiplies by the root of the width.
    """

    attention_norms: Norms = ("input_layernorm", None)
    mlp_norms: Norms = ("post_attention_layernorm", None)
    norm: Mapping[str, Any] = field(default_factory=dict)
    head_norm: Mapping[str, Any] = field(default_factory=dict)
    rope: str = "neox"
    float32_tables: bool = False
    activation: str = "swiglu"
    scaled_embedding: bool = False
    feed_forward: FeedForward | None = None


# Yields the ops of a feed-forward from what its input's name is on; the last is its result.
FeedForward = Callable[[ModelConfig, "Style", int, str], Iterator[Op]]


def rms_norm(config: ModelConfig, tap: str, source: str, weight: str, **attrs: Any) -> Op:
    """One RMSNorm of ``source``."""
    return Op("rms_norm", tap, (source,), (weight,), {"epsilon": config.rms_norm_eps, **attrs})


def linear(tap: str, source: str, module: str, *, bias: bool = False, **attrs: Any) -> Op:
    """The linear layer ``module``."""
    weights = (f"{module}.weight", f"{module}.bias") if bias else (f"{module}.weight",)
    return Op("linear", tap, (source,), weights, attrs)


def table_names(config: ModelConfig, layer: int, positions: int) -> tuple[str, str]:
    """The rotary tables, sine and cosine, of a layer where positions reach that far."""
    kind = "rope"
    if config.rope_local is not None and layer in config.sliding_layers:
        kind = "rope_local"
    elif config.rope.rope_type == "longrope":
        original = config.rope.original_max_position_embeddings or 0
        kind = "rope_long" if positions > original else "rope"
    return f"{kind}_sin", f"{kind}_cos"


def attention(config: ModelConfig, style: Style, layer: int, step: Pass) -> Sublayer:
    """Grouped-query attention with rotary embedding, its norms and its residual."""
    prefix = f"model.layers.{layer}"
    before, behind = style.attention_norms
    source = before or "input"

    def projection(tap: str, given: str, *, bias: bool, **attrs: Any) -> Op:
        return linear(tap, given, f"{prefix}.self_attn.{tap}", bias=bias, **attrs)

    def ops() -> Iterator[Op]:
        yield from layer_norm(config, style, layer, before, "input")
        for x in "qkv":
            yield projection(
                f"{x}_proj", source, bias=config.attention_bias, head_dim=config.head_dim
            )
        if config.qk_norm:
            for x in "qk":
                weight = f"{prefix}.self_attn.{x}_norm.weight"
                attrs = {**style.norm, **style.head_norm}
                yield rms_norm(config, f"{x}_norm", f"{x}_proj", weight, **attrs)
        rotated = "norm" if config.qk_norm else "proj"
        tables = table_names(config, layer, step.positions)
        for x in "qk":
            given = (f"{x}_{rotated}", "position_ids", *tables)
            yield Op("rope", f"{x}_rope", given, attrs={"algo": style.rope})
        yield from scores_to_context(config, layer, step)
        yield projection("o_proj", "context", bias=config.attention_output_bias)
        yield from layer_norm(config, style, layer, behind, "o_proj")
        yield residual(behind or "o_proj")

    return Sublayer(f"layers.{layer:02d}.attention", tuple(ops()))


def scores_to_context(config: ModelConfig, layer: int, step: Pass) -> Iterator[Op]:
    """Attention itself, from rotated queries and keys to the context."""
    key, value = (with_past(x) if step.past else x for x in ("k_rope", "v_proj"))
    window = config.window(layer)
    masked = ("scores", "attention_mask") if step.masked else ("scores",)
    yield Op("matmul_qk", "scores", ("q_rope", key), attrs={"scale": config.attention_scale})
    yield Op("causal_softmax", "probs", masked, attrs={"window": window} if window else {})
    yield Op("matmul_pv", "context", ("probs", value))


def layer_norm(
    config: ModelConfig, style: Style, layer: int, norm: str | None, source: str
) -> list[Op]:
    """The norm of a layer that has one there."""
    weight = f"model.layers.{layer}.{norm}.weight"
    return [rms_norm(config, norm, source, weight, **style.norm)] if norm else []


def residual(source: str) -> Op:
    """What a sublayer ends in."""
    return Op("add", "output", ("input", source))


def mlp(config: ModelConfig, style: Style, layer: int) -> Sublayer:
    """A feed-forward, its norms and its residual."""
    before, behind = style.mlp_norms
    ops = layer_norm(config, style, layer, before, "input")
    feed_forward = style.feed_forward or gated
    ops += feed_forward(config, style, layer, before or "input")
    ops += layer_norm(config, style, layer, behind, ops[-1].output)
    return Sublayer(f"layers.{layer:02d}.mlp", (*ops, residual(ops[-1].output)))


def gated(config: ModelConfig, style: Style, layer: int, source: str) -> Iterator[Op]:
    """A gated feed-forward: down(activation(gate) * up)."""
    prefix = f"model.layers.{layer}.mlp"
    for tap in ("gate_proj", "up_proj"):
        yield linear(tap, source, f"{prefix}.{tap}", bias=config.mlp_bias)
    yield Op(style.activation, style.activation, ("up_proj", "gate_proj"))
    yield linear("down_proj", style.activation, f"{prefix}.down_proj", bias=config.mlp_bias)


def embedding(config: ModelConfig, style: Style) -> Sublayer:
    """Token ids to hidden states."""
    attrs = {"scale": config.hidden_size**0.5} if style.scaled_embedding else {}
    op = Op("embedding", "output", ("token_ids",), ("model.embed_tokens.weight",), attrs)
    return Sublayer("embedding", (op,))


def final_norm(config: ModelConfig, style: Style) -> Sublayer:
    """The norm before the logits."""
    norm = rms_norm(config, "output", "input", "model.norm.weight", **style.norm)
    return Sublayer("final_norm", (norm,))


def lm_head(config: ModelConfig, *, last_only: bool) -> Sublayer:
    """Hidden states to logits, of every token or only of the last."""
    tied = config.tie_word_embeddings
    weight = "model.embed_tokens.weight" if tied else "lm_head.weight"
    op = Op("linear", "output", ("input",), (weight,), {"last_token": True} if last_only else {})
    token = "last_token" if last_only else "token"
    return Sublayer("lm_head", (op,), ("batch", token, "vocab"))


def with_fused_attention(sublayer: Sublayer) -> Sublayer:
    """Return an attention sublayer whose scores, probs and context are one ``sdpa`` op.

    Any other sublayer is returned as it is.
    """
    ops = {op.kind: op for op in sublayer.ops}
    if "matmul_qk" not in ops:
        return sublayer
    scores, softmax, context = (ops[k] for k in ("matmul_qk", "causal_softmax", "matmul_pv"))
    given = (*scores.inputs, context.inputs[1])
    fused = Op("sdpa", context.output, given, attrs={**scores.attrs, **softmax.attrs})
    kept = [op for op in sublayer.ops if op.output not in FUSED_TAPS]
    return replace(sublayer, ops=tuple(fused if op is context else op for op in kept))
