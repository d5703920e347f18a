"""The arithmetic of every op in PyTorch, and beside it how far rounding may move its result.

Kernels have the rounding points of Hugging Face's eager models: where the model computes in
float32 inside a narrower type, so do they; a float64 recording is float64 throughout. Noise is
in standard deviations (docs/budgets.md derives it). Shapes: B batch, S token, T key token, H
query heads, K key/value heads, D head_dim, M hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.model.graph import Op
from goldenctl.ops.table import OPS
from goldenctl.reference.expert_kernels import (
    expert_linear,
    expert_linear_noise,
    expert_sum,
    expert_sum_noise,
    route,
    softmax_of_chosen,
    sum_in_wide,
)
from goldenctl.reference.rounding import (
    UNIFORM,
    Attrs,
    Before,
    Kernel,
    Noise,
    Shared,
    Unit,
    of_sum,
    row_norm,
    terms,
    wide,
)


def _none(
    _unit: Unit,
    _attrs: Attrs,
    _inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    return torch.zeros_like(out)


def embedding(attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
    (ids,), (table,) = inputs, weights
    rows = F.embedding(ids, table)  # [B, S] -> [B, S, M]
    return scaled(rows, attrs["scale"]) if "scale" in attrs else rows


def scaled(x: Tensor, scale: float) -> Tensor:
    """Multiply by a number that is first rounded to the tensor's own type."""
    return x * torch.tensor(scale, dtype=torch.float32, device=x.device).to(x.dtype)


def rms_norm(attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
    (x,), (weight,) = inputs, weights
    xw = norm_rows(attrs, x).to(wide(x.dtype))
    mean_square = xw.pow(2).mean(-1, keepdim=True)
    normed = xw * torch.rsqrt(mean_square + attrs["epsilon"])
    form = attrs.get("form")
    if form is None:
        return (weight * normed.to(x.dtype)).view(x.shape)  # rounds before the weight and after
    factor = 1.0 + weight.to(xw.dtype) if form == "plus_one" else weight
    return (normed * factor).to(x.dtype).view(x.shape)


def norm_rows(attrs: Attrs, x: Tensor) -> Tensor:
    """[B, S, H, D] -> [B, S, H * D] where a norm takes all heads as one row."""
    return x.flatten(2) if attrs.get("merged") else x


def norm_weight(attrs: Attrs, weight: Tensor) -> Tensor:
    """What the normed row is multiplied by, in the wide type."""
    factor = weight.to(wide(weight.dtype))
    return 1.0 + factor if attrs.get("form") == "plus_one" else factor


def _rms_norm_noise(unit: Unit, attrs: Attrs, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    # The mean square of n terms; its root halves the relative error.
    return 0.5 * of_sum(unit, norm_rows(attrs, inputs[0]).shape[-1], row_norm(out))


def _one_rounding_norm(
    attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    """Multiplies by the weight before it rounds."""
    (x,), (weight,) = inputs, weights
    xw = norm_rows(attrs, x).to(wide(x.dtype))
    scale = torch.rsqrt(xw.pow(2).mean(-1, keepdim=True) + attrs["epsilon"])
    return (xw * norm_weight(attrs, weight).to(xw.dtype) * scale).to(x.dtype).view(x.shape)


def _two_roundings_norm(
    attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    """Rounds before it multiplies by the weight, and after."""
    (x,), (weight,) = inputs, weights
    xw = norm_rows(attrs, x).to(wide(x.dtype))
    scale = torch.rsqrt(xw.pow(2).mean(-1, keepdim=True) + attrs["epsilon"])
    rounded = (xw * scale).to(x.dtype).to(xw.dtype)
    return (rounded * norm_weight(attrs, weight).to(xw.dtype)).to(x.dtype).view(x.shape)


def linear(_attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
    (x,) = inputs
    return F.linear(x, *weights)  # rounds once, after the bias


def _linear_noise(
    unit: Unit,
    _attrs: Attrs,
    inputs: tuple[Tensor, ...],
    squares: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    # Partial sums are of the size of the result, or of a random walk over the terms.
    x = inputs[0].flatten(2)[:, -out.shape[1] :]  # [B, S, K]
    walk = F.linear(terms(x, squares[0]), squares[0]).sqrt()
    return of_sum(unit, x.shape[-1], torch.hypot(out, walk.reshape(out.shape)))


def _split_k(_attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
    """The sum over K in four parts, added in float32."""
    (x,), (weight, *bias) = inputs, weights
    kind = wide(x.dtype)
    parts = zip(x.to(kind).chunk(4, -1), weight.to(kind).chunk(4, 1), strict=True)
    total = sum(a @ b.T for a, b in parts)
    assert isinstance(total, Tensor)
    return (total + bias[0].to(kind) if bias else total).to(x.dtype)


def rope(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    x, positions, sin, cos = inputs  # [B, S, H, D], [B, S], [P, R/2], [P, R/2]
    index = positions.long()
    sin, cos = sin[index].unsqueeze(2), cos[index].unsqueeze(2)  # [B, S, 1, R/2]
    rotary = 2 * sin.shape[-1]
    turned, kept = x[..., :rotary], x[..., rotary:]
    if attrs["algo"] == "neox":
        first, second = turned.chunk(2, dim=-1)
        rotated = (first * cos + -second * sin, second * cos + first * sin)
        # each product and the sum round to the type of x, or of wider tables
        return torch.cat([*rotated, kept], dim=-1).to(x.dtype)
    first, second = turned[..., 0::2], turned[..., 1::2]
    rotated = (first * cos + -second * sin, second * cos + first * sin)
    return torch.cat([torch.stack(rotated, dim=-1).flatten(-2), kept], dim=-1).to(x.dtype)


def _rope_noise(
    unit: Unit,
    attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    # Two products may be rounded to the stored type before they are added: together they are
    # of the size of the pair, not of their sum. What is not rotated is copied.
    half = inputs[2].shape[-1]
    turned, kept = out[..., : 2 * half], torch.zeros_like(out[..., 2 * half :])
    if attrs["algo"] == "neox":
        pair = torch.hypot(*turned.chunk(2, dim=-1))
        pairs = torch.cat([pair, pair], dim=-1)
    else:
        pairs = torch.hypot(turned[..., 0::2], turned[..., 1::2]).repeat_interleave(2, dim=-1)
    return torch.cat([pairs, kept], dim=-1) * (unit.store * UNIFORM / math.sqrt(2))


def matmul_qk(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    k = repeat_kv(k.transpose(1, 2).contiguous(), q.shape[2])
    scores = torch.matmul(q.transpose(1, 2), k.transpose(2, 3))
    return scores.mul_(attrs["scale"])  # rounds twice


def _matmul_qk_noise(
    unit: Unit,
    _attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]; out [B, H, S, T]
    groups = torch.unflatten(q.square(), 2, (k.shape[2], -1)).permute(0, 2, 3, 1, 4)
    squares = groups.flatten(2, 3) @ k.square().permute(0, 2, 3, 1)  # [B, K, G * S, T]
    walk = squares.reshape(out.shape).sqrt()
    return of_sum(unit, q.shape[-1], torch.hypot(out, walk * q.shape[-1] ** -0.5))


def _scale_in_product(
    attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """The scale inside the product: one rounding instead of two."""
    q, k = inputs
    kind = wide(q.dtype)
    scaled = q.to(kind) * attrs["scale"]
    return matmul_qk({**attrs, "scale": 1.0}, (scaled, k.to(kind)), ()).to(q.dtype)


def causal_softmax(
    attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    scores, *padding = inputs  # [B, H, S, T]
    mask = torch.zeros((), dtype=scores.dtype, device=scores.device)
    mask = torch.where(visible(attrs, scores, padding), mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores + mask, dim=-1, dtype=wide(scores.dtype)).to(scores.dtype)


def visible(attrs: Attrs, scores: Tensor, padding: Sequence[Tensor]) -> Tensor:
    """Return which of T keys each of S rows sees, ``[S, T]`` or ``[B, 1, S, T]``.

    Row i sees the columns up to T - S + i, the last ``window`` of them where there is one;
    padding, [B, T], hides a column from every row with its 0.
    """
    token, key_token = scores.shape[-2:]
    seen = torch.ones(token, key_token, dtype=torch.bool, device=scores.device)
    seen = seen.tril(key_token - token)
    if window := attrs.get("window"):
        seen = seen.triu(key_token - token + 1 - window)
    return seen & padding[0][:, None, None, :].bool() if padding else seen


def _softmax_noise(unit: Unit, _attrs: Attrs, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    # exp(s - max) errs by u |s - max|, where that matters: weighted by the probability.
    scores = inputs[0]
    largest = scores.masked_fill(out == 0, -torch.inf).amax(-1, keepdim=True)
    shift = row_norm(out * (scores - largest).masked_fill(out == 0, 0.0))
    exponential = (shift + 4.0 * row_norm(out)) * (UNIFORM * unit.sum)
    in_any_order = of_sum(unit, out.shape[-1], row_norm(out))
    return exponential + in_any_order.maximum(_lost(unit, out) * row_norm(out))


def _lost(unit: Unit, probs: Tensor) -> Tensor:
    """What a sum in one go loses of 1: terms below one roundoff leave a large one as it is, all
    in the same direction (Higham, Accuracy and Stability of Numerical Algorithms, 2002, ch. 4)."""
    return torch.where(probs < unit.sum, probs, 0.0).sum(-1, keepdim=True)


def _exp2_softmax(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    """By powers of two, as fused attention kernels make it."""
    scores, *padding = inputs
    scores = scores.to(wide(scores.dtype))
    hidden = ~visible(attrs, scores, padding)
    log2 = (scores * 1.4426950408889634).masked_fill(hidden, torch.finfo(scores.dtype).min)
    powers = torch.exp2(log2 - log2.amax(-1, keepdim=True))
    return (powers / powers.sum(-1, keepdim=True)).to(inputs[0].dtype)


def matmul_pv(_attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    context = torch.matmul(probs, repeat_kv(v.transpose(1, 2), probs.shape[1]))
    return context.transpose(1, 2).contiguous()  # [B, S, H, D]


def _matmul_pv_noise(
    unit: Unit,
    _attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]; out [B, S, H, D]
    groups = torch.unflatten(probs.square(), 1, (v.shape[2], -1)).flatten(2, 3)
    squares = groups @ v.square().permute(0, 2, 1, 3)  # [B, K, G * S, D]
    heads = torch.unflatten(squares, 2, (-1, probs.shape[2])).flatten(1, 2)  # [B, H, S, D]
    return of_sum(unit, probs.shape[-1], torch.hypot(out, heads.transpose(1, 2).sqrt()))


def swiglu(_attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    up, gate = inputs
    return F.silu(gate) * up  # rounds after silu and after the product


def geglu(_attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    up, gate = inputs
    return F.gelu(gate, approximate="tanh") * up  # rounds after the activation and the product


def _swiglu_noise(
    unit: Unit,
    _attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    # exp(-g) errs by u |g|; a fast exp and the division add a few u.
    return out.abs() * (inputs[1].abs() + 4.0) * (UNIFORM * unit.sum)


def _geglu_noise(
    unit: Unit,
    _attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    # 1 + tanh(t) is 2 / (1 + exp(-2 t)) at best, and where t is far below zero loses what 1 has
    # more than tanh(t): it errs by u of 1.
    up, gate = inputs
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate.pow(3))
    lost = 0.5 * (gate * up).abs() * torch.where(inner < 0, 1.0, 0.0)
    return (out.abs() * (2 * inner.abs() + 4.0) + lost) * (UNIFORM * unit.sum)


def _logistic_gelu(
    _attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """GELU's tanh form by way of the logistic function, which is the same number."""
    up, gate = (x.to(wide(x.dtype)) for x in inputs)
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate.pow(3))
    return (gate * torch.sigmoid(2 * inner) * up).to(inputs[0].dtype)


def _fast_silu(_attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    """SiLU by way of tanh, which agrees with the logistic function up to rounding."""
    up, gate = (x.to(wide(x.dtype)) for x in inputs)
    return (gate * (0.5 * torch.tanh(0.5 * gate) + 0.5) * up).to(inputs[0].dtype)


def add(_attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
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
        alternatives={
            "one-rounding RMSNorm": _one_rounding_norm,
            "two-roundings RMSNorm": _two_roundings_norm,
        },
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
    "geglu": Arithmetic(geglu, _geglu_noise, alternatives={"GELU by sigmoid": _logistic_gelu}),
    "route": Arithmetic(
        route,
        shared=_softmax_noise,
        alternatives={"softmax of the chosen experts": softmax_of_chosen},
    ),
    "expert_linear": Arithmetic(expert_linear, expert_linear_noise),
    "expert_sum": Arithmetic(
        expert_sum, expert_sum_noise, alternatives={"experts summed in float32": sum_in_wide}
    ),
    "add": Arithmetic(add, _none),
}
KERNELS: dict[str, Kernel] = {name: each.kernel for name, each in ARITHMETIC.items()}


def noise_of(
    op: Op, unit: Unit, inputs: Mapping[str, Tensor], squares: Mapping[str, Tensor], exact: Tensor
) -> Noise:
    """Return the noise of an op with these inputs and squared weights, whose exact result is
    ``exact``."""
    args = tuple(inputs[name] for name in op.inputs)
    last = exact.abs() * (unit.store * math.sqrt(OPS[op.kind].roundings) * UNIFORM)
    noise = ARITHMETIC[op.kind]
    if noise.shared is not None:
        row = noise.shared(unit, op.attrs, args, exact)
        return Noise(last, exact * (row / row_norm(exact).clamp_min(torch.finfo(exact.dtype).tiny)))
    assert noise.before is not None, op.kind
    operands = tuple(squares[name] for name in op.weights)
    before = noise.before(unit, op.attrs, args, operands, exact)
    return Noise(torch.hypot(last, before), None)
