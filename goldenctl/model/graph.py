"""The graph of a model: every sublayer as a list of ops over named tensors.

The reference executes these lists, a plan binds them to bytes, a fault transforms them,
and a report orders its findings by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from goldenctl.model.config import ModelConfig
from goldenctl.places import place_of

# Dimension labels of each tensor that a sublayer reads or yields, by its stable name.
_HIDDEN = ("batch", "token", "hidden")
_QUERY = ("batch", "token", "head", "head_dim")
_KEY = ("batch", "token", "kv_head", "head_dim")
_SCORES = ("batch", "head", "token", "key_token")
_INNER = ("batch", "token", "intermediate")
DIMS: dict[str, tuple[str, ...]] = {
    "token_ids": ("batch", "token"),
    "position_ids": ("batch", "token"),
    "attention_mask": ("batch", "key_token"),
    "rope_cos": ("position", "rotary"),
    "rope_sin": ("position", "rotary"),
    "input": _HIDDEN,
    "output": _HIDDEN,
    "input_layernorm": _HIDDEN,
    "post_attention_layernorm": _HIDDEN,
    "q_proj": _QUERY,
    "q_norm": _QUERY,
    "q_rope": _QUERY,
    "context": _QUERY,
    "k_proj": _KEY,
    "k_norm": _KEY,
    "k_rope": _KEY,
    "v_proj": _KEY,
    "scores": _SCORES,
    "probs": _SCORES,
    "o_proj": _HIDDEN,
    "gate_proj": _INNER,
    "up_proj": _INNER,
    "swiglu": _INNER,
    "down_proj": _HIDDEN,
}
CONSTANTS = ("rope_cos", "rope_sin")
# The tensors of a sublayer that are kept even without taps, and the tap each one links to.
CACHE_LINKS = {"key": "k_rope", "value": "v_proj"}

# Marks an op's input as the tensor of all steps so far, joined along the token axis.
_PAST = "past+"

# What a fused attention kernel does not yield.
FUSED_TAPS = ("scores", "probs")
# The op whose result a fused kernel does yield, from queries, keys and values.
FUSED_OP = "matmul_pv"


@dataclass(frozen=True)
class Op:
    """One op: ``kind`` applied to ``inputs`` and ``weights`` yields the tensor ``output``.

    ``inputs`` name tensors of the sublayer, its step or the constants, ``past+k_rope`` the
    keys of earlier steps with this one's after them; ``weights`` are the checkpoint's parameter
    names. ``attrs`` are the op's parameters: ``epsilon`` (rms_norm),
    ``algo`` (rope), ``scale`` (matmul_qk).
    """

    kind: str
    output: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sublayer:
    """The unit of replay: a short list of ops from ``input`` to ``output``."""

    name: str
    ops: tuple[Op, ...]
    output_dims: tuple[str, ...] = _HIDDEN

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(op.output for op in self.ops)

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for op in self.ops for name in op.weights))

    def dims(self, tensor: str) -> tuple[str, ...]:
        """Dimension labels of one of the sublayer's tensors."""
        return self.output_dims if tensor == "output" else DIMS[tensor]

    def producer(self, tensor: str) -> Op:
        """The op that yields ``tensor``; KeyError when none does."""
        return {op.output: op for op in self.ops}[CACHE_LINKS.get(tensor, tensor)]


def with_past(name: str) -> str:
    """Return the name of a tensor of all steps so far: ``past+k_rope``."""
    return f"{_PAST}{name}"


def own_name(name: str) -> str:
    """Return the name of this step's part of a tensor of all steps so far."""
    return name.removeprefix(_PAST)


def attention(
    config: ModelConfig, layer: int, *, past: bool = False, masked: bool = False
) -> Sublayer:
    """Pre-norm grouped-query attention with rotary embedding and its residual.

    ``past`` reads keys and values of earlier steps too, ``masked`` hides padding tokens.
    """
    prefix = f"model.layers.{layer}"
    eps = {"epsilon": config.rms_norm_eps}

    def linear(tap: str, source: str, *, bias: bool) -> Op:
        name = f"{prefix}.self_attn.{tap}"
        weights = (f"{name}.weight", f"{name}.bias") if bias else (f"{name}.weight",)
        return Op("linear", tap, (source,), weights)

    ops = [
        Op("rms_norm", "input_layernorm", ("input",), (f"{prefix}.input_layernorm.weight",), eps)
    ]
    ops += [
        linear(tap, "input_layernorm", bias=config.attention_bias)
        for tap in ("q_proj", "k_proj", "v_proj")
    ]
    rotated = {"q": "q_proj", "k": "k_proj"}
    if config.qk_norm:
        for x in "qk":
            weight = f"{prefix}.self_attn.{x}_norm.weight"
            ops.append(Op("rms_norm", f"{x}_norm", (f"{x}_proj",), (weight,), eps))
            rotated[x] = f"{x}_norm"
    ops += [
        Op(
            "rope",
            f"{x}_rope",
            (rotated[x], "position_ids", "rope_sin", "rope_cos"),
            attrs={"algo": "neox"},
        )
        for x in "qk"
    ]
    key, value = (with_past(x) if past else x for x in ("k_rope", "v_proj"))
    ops += [
        Op("matmul_qk", "scores", ("q_rope", key), attrs={"scale": config.head_dim**-0.5}),
        Op("causal_softmax", "probs", ("scores", "attention_mask") if masked else ("scores",)),
        Op("matmul_pv", "context", ("probs", value)),
        linear("o_proj", "context", bias=config.attention_output_bias),
        Op("add", "output", ("input", "o_proj")),
    ]
    return Sublayer(f"layers.{layer:02d}.attention", tuple(ops))


def mlp(config: ModelConfig, layer: int) -> Sublayer:
    """Pre-norm gated feed-forward with SiLU and its residual."""
    prefix = f"model.layers.{layer}"
    norm = f"{prefix}.post_attention_layernorm.weight"

    def linear(tap: str, source: str) -> Op:
        name = f"{prefix}.mlp.{tap}"
        weights = (f"{name}.weight", f"{name}.bias") if config.mlp_bias else (f"{name}.weight",)
        return Op("linear", tap, (source,), weights)

    return Sublayer(
        f"layers.{layer:02d}.mlp",
        (
            Op(
                "rms_norm",
                "post_attention_layernorm",
                ("input",),
                (norm,),
                {"epsilon": config.rms_norm_eps},
            ),
            linear("gate_proj", "post_attention_layernorm"),
            linear("up_proj", "post_attention_layernorm"),
            Op("swiglu", "swiglu", ("up_proj", "gate_proj")),
            linear("down_proj", "swiglu"),
            Op("add", "output", ("input", "down_proj")),
        ),
    )


def embedding() -> Sublayer:
    """Token ids to hidden states."""
    return Sublayer(
        "embedding", (Op("embedding", "output", ("token_ids",), ("model.embed_tokens.weight",)),)
    )


def final_norm(config: ModelConfig) -> Sublayer:
    """The norm before the logits."""
    op = Op(
        "rms_norm", "output", ("input",), ("model.norm.weight",), {"epsilon": config.rms_norm_eps}
    )
    return Sublayer("final_norm", (op,))


def lm_head(config: ModelConfig, *, last_only: bool) -> Sublayer:
    """Hidden states to logits, of every token or only of the last."""
    tied = config.tie_word_embeddings
    weight = "model.embed_tokens.weight" if tied else "lm_head.weight"
    op = Op("linear", "output", ("input",), (weight,), {"last_token": True} if last_only else {})
    token = "last_token" if last_only else "token"
    return Sublayer("lm_head", (op,), ("batch", token, "vocab"))


def decoder(
    config: ModelConfig, *, logits: str = "last", past: bool = False, masked: bool = False
) -> Iterator[Sublayer]:
    """Yield a decoder's sublayers in execution order.

    ``logits`` is ``last``, ``all`` or ``none`` (no lm_head); ``past`` and ``masked`` are as
    for ``attention``.
    """
    yield embedding()
    for layer in range(config.num_hidden_layers):
        yield attention(config, layer, past=past, masked=masked)
        yield mlp(config, layer)
    yield final_norm(config)
    if logits != "none":
        yield lm_head(config, last_only=logits == "last")


def with_fused_attention(sublayer: Sublayer) -> Sublayer:
    """Return an attention sublayer whose scores, probs and context are one ``sdpa`` op.

    Any other sublayer is returned as it is.
    """
    ops = {op.kind: op for op in sublayer.ops}
    if "matmul_qk" not in ops:
        return sublayer
    scores, context = ops["matmul_qk"], ops["matmul_pv"]
    fused = Op("sdpa", context.output, (*scores.inputs, context.inputs[1]), attrs=scores.attrs)
    kept = [op for op in sublayer.ops if op.output not in FUSED_TAPS]
    return replace(sublayer, ops=tuple(fused if op is context else op for op in kept))


def sizes(config: ModelConfig, batch: int, token: int, past: int = 0) -> dict[str, int]:
    """Return the size of each dimension label for one step of a case."""
    return {
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
        "rotary": config.head_dim // 2,
    }


def recorded_path(sublayer: str, name: str) -> str:
    """Return where a golden holds a tensor that an op of the sublayer at this path reads."""
    if name in CONSTANTS:
        return f"constants/{name}"
    if name == "token_ids":
        return f"{sublayer}/input"
    if name in ("position_ids", "attention_mask"):
        return f"{place_of(sublayer).step_path}/{name}"
    return f"{sublayer}/{name}"
