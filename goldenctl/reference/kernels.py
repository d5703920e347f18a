"""The arithmetic of every op in PyTorch, and beside it how far rounding may move its result.

Kernels have the rounding points of Hugging Face's eager models: where the model computes in
float32 inside a narrower type, so do they; a float64 recording is float64 throughout. Noise is
in standard deviations (docs/budgets.md derives it). Shapes: B batch, S token, T key token, H
query heads, K key/value heads, D head_dim, M hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.dtypes import DTYPES
from goldenctl.model.graph import Op
from goldenctl.ops.table import OPS

Kernel = Callable[[Mapping[str, Any], tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
# What comes before the last rounding: standard deviations of each element, [..., n].
Before = Callable[["Unit", tuple[Tensor, ...], tuple[Tensor, ...], Tensor], Tensor]
# The same as one factor on the whole row, from the sum that it is divided by: it comes through
# a linear layer whole, where independent errors would average out. Of the row's norm, [..., 1].
Shared = Callable[["Unit", tuple[Tensor, ...], Tensor], Tensor]

# A uniform rounding error of one unit roundoff u has a standard deviation of u / sqrt(3).
_UNIFORM = 1 / math.sqrt(3)


@dataclass(frozen=True)
class Unit:
    """Unit roundoffs: of the recorded type, and of the type that sums are made in."""

    store: float
    sum: float

    @staticmethod
    def of(dtype: str) -> Unit:
        """Sums are made in float32, or in float64 for float64."""
        store = DTYPES[dtype].eps / 2
        return Unit(store, min(store, DTYPES["float32"].eps / 2))


@dataclass(frozen=True)
class Noise:
    """Standard deviations in the shape of an op's result: ``own`` of errors that each element
    has for itself, ``shared`` of one error that moves the whole row, None where there is none."""

    own: Tensor
    shared: Tensor | None

    @property
    def sigma(self) -> Tensor:
        return self.own if self.shared is None else torch.hypot(self.own, self.shared)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type for sums and transcendental functions: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _of_sum(unit: Unit, count: int, size: Tensor) -> Tensor:
    """A sum of ``count`` terms in any order: each of its roundings errs by u / sqrt(3) of a
    partial sum, which is at most of ``size`` (Higham and Mary, A New Approach to Probabilistic
    Rounding Error Analysis, 2019)."""
    return size * (unit.sum * math.sqrt(count) * _UNIFORM)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def _none(
    _unit: Unit, _inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    return torch.zeros_like(out)


def embedding(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    (ids,), (table,) = inputs, weights
    return F.embedding(ids, table)  # [B, S] -> [B, S, M]


def rms_norm(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    (x,), (weight,) = inputs, weights
    xw = x.to(wide(x.dtype))
    mean_square = xw.pow(2).mean(-1, keepdim=True)
    normed = xw * torch.rsqrt(mean_square + attrs["epsilon"])
    return weight * normed.to(x.dtype)  # rounds to x.dtype before the weight and after


def _rms_norm_noise(unit: Unit, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    # The mean square of n terms; its root halves the relative error.
    return 0.5 * _of_sum(unit, inputs[0].shape[-1], _norm(out))


def _one_rounding_norm(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    """Multiplies by the weight before it rounds."""
    (x,), (weight,) = inputs, weights
    xw = x.to(wide(x.dtype))
    scale = torch.rsqrt(xw.pow(2).mean(-1, keepdim=True) + attrs["epsilon"])
    return (xw * weight.to(xw.dtype) * scale).to(x.dtype)


def linear(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    (x,) = inputs
    return F.linear(x, *weights)  # rounds once, after the bias


def _linear_noise(
    unit: Unit, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # Partial sums are of the size of the result, or of a random walk over the terms.
    x, weight = inputs[0].flatten(2)[:, -out.shape[1] :], weights[0]  # [B, S, K], [N, K]
    walk = (x.pow(2) @ weight.pow(2).T).sqrt()
    return _of_sum(unit, x.shape[-1], torch.hypot(out, walk.reshape(out.shape)))


def _split_k(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    """The sum over K in four parts, added in float32."""
    (x,), (weight, *bias) = inputs, weights
    kind = wide(x.dtype)
    parts = zip(x.to(kind).chunk(4, -1), weight.to(kind).chunk(4, 1), strict=True)
    total = sum(a @ b.T for a, b in parts)
    assert isinstance(total, Tensor)
    return (total + bias[0].to(kind) if bias else total).to(x.dtype)


def rope(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    x, positions, sin, cos = inputs  # [B, S, H, D], [B, S], [P, D/2], [P, D/2]
    index = positions.long()
    sin, cos = sin[index].unsqueeze(2), cos[index].unsqueeze(2)  # [B, S, 1, D/2]
    if attrs["algo"] == "neox":
        first, second = x.chunk(2, dim=-1)
        rotated = (first * cos + -second * sin, second * cos + first * sin)
        return torch.cat(rotated, dim=-1)  # each product and the sum round to x.dtype
    first, second = x[..., 0::2], x[..., 1::2]
    rotated = (first * cos + -second * sin, second * cos + first * sin)
    return torch.stack(rotated, dim=-1).flatten(-2)


def _rope_noise(
    unit: Unit, _inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # Two products may be rounded to the stored type before they are added: together they are
    # of the size of the pair, not of their sum.
    first, second = out.chunk(2, dim=-1)
    pair = torch.hypot(first, second) / math.sqrt(2)
    return torch.cat([pair, pair], dim=-1) * (unit.store * _UNIFORM)


def matmul_qk(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    k = repeat_kv(k.transpose(1, 2).contiguous(), q.shape[2])
    scores = torch.matmul(q.transpose(1, 2), k.transpose(2, 3))
    return scores.mul_(attrs["scale"])  # rounds twice


def _matmul_qk_noise(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]; out [B, H, S, T]
    squares = k.pow(2).repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    walk = torch.einsum("bshd,bthd->bhst", q.pow(2), squares).sqrt()
    return _of_sum(unit, q.shape[-1], torch.hypot(out, walk * q.shape[-1] ** -0.5))


def _scale_in_product(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """The scale inside the product: one rounding instead of two."""
    q, k = inputs
    kind = wide(q.dtype)
    scaled = q.to(kind) * attrs["scale"]
    return matmul_qk({**attrs, "scale": 1.0}, (scaled, k.to(kind)), ()).to(q.dtype)


def causal_softmax(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    scores, *padding = inputs  # [B, H, S, T]: row i sees columns 0 .. T - S + i
    token, key_token = scores.shape[-2:]
    lowest = torch.finfo(scores.dtype).min
    mask = torch.full((token, key_token), lowest, dtype=scores.dtype, device=scores.device)
    mask = mask.triu(diagonal=key_token - token + 1)
    if padding:
        (visible,) = padding  # [B, T], 0 hides a column from every row
        mask = torch.where(visible[:, None, None, :].bool(), mask, lowest)  # [B, 1, S, T]
    return torch.softmax(scores + mask, dim=-1, dtype=wide(scores.dtype)).to(scores.dtype)


def _softmax_noise(unit: Unit, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    # exp(s - max) errs by u |s - max|, where that matters: weighted by the probability.
    scores = inputs[0]
    largest = scores.masked_fill(out == 0, -torch.inf).amax(-1, keepdim=True)
    shift = _norm(out * (scores - largest).masked_fill(out == 0, 0.0))
    exponential = (shift + 4.0 * _norm(out)) * (_UNIFORM * unit.sum)
    in_any_order = _of_sum(unit, out.shape[-1], _norm(out))
    return exponential + in_any_order.maximum(_lost(unit, out) * _norm(out))


def _lost(unit: Unit, probs: Tensor) -> Tensor:
    """What a sum in one go loses of 1: terms below one roundoff leave a large one as it is, all
    in the same direction (Higham, Accuracy and Stability of Numerical Algorithms, 2002, ch. 4)."""
    return torch.where(probs < unit.sum, probs, 0.0).sum(-1, keepdim=True)


def _exp2_softmax(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """By powers of two, as fused attention kernels make it."""
    scores, *padding = inputs
    scores = scores.to(wide(scores.dtype))
    token, key_token = scores.shape[-2:]
    hidden = torch.ones(token, key_token, dtype=torch.bool).triu(key_token - token + 1)
    if padding:
        hidden = hidden | ~padding[0][:, None, None, :].bool()
    log2 = (scores * 1.4426950408889634).masked_fill(hidden, torch.finfo(scores.dtype).min)
    powers = torch.exp2(log2 - log2.amax(-1, keepdim=True))
    return (powers / powers.sum(-1, keepdim=True)).to(inputs[0].dtype)


def matmul_pv(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    context = torch.matmul(probs, repeat_kv(v.transpose(1, 2), probs.shape[1]))
    return context.transpose(1, 2).contiguous()  # [B, S, H, D]


def _matmul_pv_noise(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]; out [B, S, H, D]
    squares = v.pow(2).repeat_interleave(probs.shape[1] // v.shape[2], dim=2)
    walk = torch.einsum("bhst,bthd->bshd", probs.pow(2), squares).sqrt()
    return _of_sum(unit, probs.shape[-1], torch.hypot(out, walk))


def swiglu(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    up, gate = inputs
    return F.silu(gate) * up  # rounds after silu and after the product


def _swiglu_noise(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # exp(-g) errs by u |g|; a fast exp and the division add a few u.
    return out.abs() * (inputs[1].abs() + 4.0) * (_UNIFORM * unit.sum)


def _fast_silu(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """SiLU by way of tanh, which agrees with the logistic function up to rounding."""
    up, gate = (x.to(wide(x.dtype)) for x in inputs)
    return (gate * (0.5 * torch.tanh(0.5 * gate) + 0.5) * up).to(inputs[0].dtype)


def add(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    a, b = inputs
    return a + b


def repeat_kv(x: Tensor, heads: int) -> Tensor:
    """[B, K, T, D] -> [B, H, T, D]: query head h reads key/value head h // (H / K).

    As transformers does it, keys contiguous and values not: the bits of float16 products
    depend on how their operands lie in memory.
    """
    batch, kv_heads, tokens, head_dim = x.shape
    if kv_heads == heads:
        return x
    groups = heads // kv_heads
    x = x[:, :, None].expand(batch, kv_heads, groups, tokens, head_dim)
    return x.reshape(batch, heads, tokens, head_dim)


@dataclass(frozen=True)
class Arithmetic:
    """An op's kernel, and its noise before the last rounding: of each element, or of a row.

    ``alternatives`` are correct kernels that round elsewhere: none may be called wrong.
    """

    kernel: Kernel
    before: Before | None = None
    shared: Shared | None = None
    alternatives: Mapping[str, Kernel] = field(default_factory=dict)


ARITHMETIC: dict[str, Arithmetic] = {
    "embedding": Arithmetic(embedding, _none),
    "rms_norm": Arithmetic(
        rms_norm,
        shared=_rms_norm_noise,
        alternatives={"one-rounding RMSNorm": _one_rounding_norm},
    ),
    "linear": Arithmetic(linear, _linear_noise, alternatives={"split-K, fp32 sums": _split_k}),
    "rope": Arithmetic(rope, _rope_noise),
    "matmul_qk": Arithmetic(
        matmul_qk,
        _matmul_qk_noise,
        alternatives={"scale inside the product": _scale_in_product},
    ),
    "causal_softmax": Arithmetic(
        causal_softmax, shared=_softmax_noise, alternatives={"softmax by exp2": _exp2_softmax}
    ),
    "matmul_pv": Arithmetic(matmul_pv, _matmul_pv_noise),
    "swiglu": Arithmetic(swiglu, _swiglu_noise, alternatives={"SiLU by tanh": _fast_silu}),
    "add": Arithmetic(add, _none),
}
KERNELS: dict[str, Kernel] = {name: each.kernel for name, each in ARITHMETIC.items()}


def noise_of(
    op: Op, unit: Unit, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], exact: Tensor
) -> Noise:
    """Return the noise of an op with these operands, whose exact result is ``exact``."""
    args = tuple(inputs[name] for name in op.inputs)
    last = exact.abs() * (unit.store * math.sqrt(OPS[op.kind].roundings) * _UNIFORM)
    noise = ARITHMETIC[op.kind]
    if noise.shared is not None:
        row = noise.shared(unit, args, exact)
        return Noise(last, exact * (row / _norm(exact).clamp_min(torch.finfo(exact.dtype).tiny)))
    assert noise.before is not None, op.kind
    before = noise.before(unit, args, tuple(weights[name] for name in op.weights), exact)
    return Noise(torch.hypot(last, before), None)
