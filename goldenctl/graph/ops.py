"""Ops and sublayers: a decoder as lists of ops over named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Dimension labels of each tensor that a sublayer reads or yields, by its stable name.
HIDDEN = ("batch", "token", "hidden")
_QUERY = ("batch", "token", "head", "head_dim")
_KEY = ("batch", "token", "kv_head", "head_dim")
_SCORES = ("batch", "head", "token", "key_token")
_INNER = ("batch", "token", "intermediate")
# Of each token's chosen experts, in the order of their numbers.
_EXPERT = ("batch", "token", "choice", "moe_intermediate")
DIMS: dict[str, tuple[str, ...]] = {
    "token_ids": ("batch", "token"),
    "position_ids": ("batch", "token"),
    "attention_mask": ("batch", "key_token"),
    "input": HIDDEN,
    "output": HIDDEN,
    "input_layernorm": HIDDEN,
    "post_attention_layernorm": HIDDEN,
    "pre_feedforward_layernorm": HIDDEN,
    "post_feedforward_layernorm": HIDDEN,
    "post_self_attn_layernorm": HIDDEN,
    "post_mlp_layernorm": HIDDEN,
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
    "o_proj": HIDDEN,
    "gate_proj": _INNER,
    "up_proj": _INNER,
    "swiglu": _INNER,
    "geglu": _INNER,
    "down_proj": HIDDEN,
    "router_logits": ("batch", "token", "expert"),
    "routing": ("batch", "token", "expert"),
    "expert_gate": _EXPERT,
    "expert_up": _EXPERT,
    "expert_swiglu": _EXPERT,
    "expert_down": ("batch", "token", "choice", "hidden"),
    "experts": HIDDEN,
}
TABLE_DIMS = ("position", "rotary")
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
    names. ``attrs`` are the op's parameters: ``epsilon``, ``form`` and ``merged`` (rms_norm),
    ``head_dim`` (linear), ``algo`` (rope), ``scale`` (matmul_qk, embedding), ``window``
    (causal_softmax), ``choices`` and ``renormalise`` (route).
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
    output_dims: tuple[str, ...] = HIDDEN

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
