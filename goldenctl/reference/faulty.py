"""Faulty arithmetic that no engine offers: each emulated fault of the catalogue, around or
instead of an op's own kernel.

``compute`` is what replaces ``kernels.KERNELS`` wherever an op may carry a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.reference.kernels import KERNELS, norm_rows, norm_weight, rms_norm, rope
from goldenctl.reference.quantized import SCHEMES, Scheme
from goldenctl.reference.rounding import wide

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """An op about to be computed: its right kernel, parameters and operands."""

    kind: str
    attrs: Mapping[str, Any]
    inputs: Tensors
    weights: Tensors

    def run(self, *inputs: Tensor, weights: Tensors | None = None, kind: str = "") -> Tensor:
        """Compute the op itself, on other operands where they are given."""
        operands = self.weights if weights is None else weights
        return KERNELS[kind or self.kind](self.attrs, inputs or self.inputs, operands)


def compute(kind: str, attrs: Mapping[str, Any], inputs: Tensors, weights: Tensors) -> Tensor:
    """Compute an op that may be faulty: ``copy``, a transposed weight, or an emulated fault."""
    if kind == "copy":
        return inputs[0]
    if attrs.get("transposed"):
        weights = (weights[0].T, *weights[1:])
    call = Call(kind, attrs, inputs, weights)
    name = attrs.get("fault")
    return call.run() if name is None else EMULATIONS[name](call)


Emulation = Callable[[Call], Tensor]


def _after(change: Callable[[Tensor], Tensor]) -> Emulation:
    return lambda call: change(call.run().clone())


def _eps_outside(call: Call) -> Tensor:
    (x,), (weight,) = call.inputs, call.weights
    xw = norm_rows(call.attrs, x).to(wide(x.dtype))
    root = xw.pow(2).mean(-1, keepdim=True).sqrt()
    normed = xw / (root + call.attrs["epsilon"])
    if call.attrs.get("form") is None:
        return torch.mul(weight, normed.to(x.dtype)).view(x.shape)
    factor = norm_weight(call.attrs, weight).to(xw.dtype)
    return torch.mul(normed, factor).to(x.dtype).view(x.shape)


def _norm_after_rope(call: Call) -> Tensor:
    return rms_norm(call.attrs, (rope(call.attrs, call.inputs, ()),), call.weights)


def _masked(shown: int) -> Emulation:
    """A causal mask that shows ``shown`` tokens more than it should; row 0 keeps itself."""

    def emulate(call: Call) -> Tensor:
        scores, *padding = call.inputs
        token, key_token = scores.shape[-2:]
        visible = torch.ones(token, key_token, dtype=torch.bool, device=scores.device)
        visible = visible.tril(key_token - token + shown)
        if window := call.attrs.get("window"):
            visible = visible.triu(key_token - token + 1 - window)
        visible[:, 0] |= ~visible.any(-1)
        if padding:
            visible = visible & padding[0][:, None, None, :].bool()
        lowest = torch.finfo(scores.dtype).min
        masked = scores.masked_fill(~visible, lowest)
        return torch.softmax(masked, -1, dtype=wide(scores.dtype)).to(scores.dtype)

    return emulate


def _rope_restarts(call: Call) -> Tensor:
    x, positions, *tables = call.inputs
    return call.run(x, positions - positions[:, :1], *tables)


def _mask_without_past(call: Call) -> Tensor:
    token, key_token = call.inputs[0].shape[-2:]
    return _masked(token - key_token)(call)


def _with_cache(change: Callable[[Tensor, int], Tensor]) -> Emulation:
    """The keys or values [B, T, K, D] are ``change(them, tokens of earlier steps)``."""

    def emulate(call: Call) -> Tensor:
        first, kv = call.inputs
        tokens = first.shape[1 if call.kind == "matmul_qk" else 2]  # of q, or of probs
        return call.run(first, change(kv.clone(), kv.shape[1] - tokens))

    return emulate


def _lost(kv: Tensor, past: int) -> Tensor:
    kv[:, :past] = 0.0
    return kv


def _not_written(kv: Tensor, past: int) -> Tensor:
    kv[:, past:] = 0.0
    return kv


def _one_early(kv: Tensor, past: int) -> Tensor:
    """This step's tokens begin on the last one of the steps before; one slot stays empty."""
    kv[:, past - 1 : -1] = kv[:, past:].clone()
    kv[:, -1] = 0.0
    return kv


def _with_heads(pick: Callable[[int, int], list[int]]) -> Emulation:
    """Query head h reads key/value head ``pick(H, K)[h]``."""

    def emulate(call: Call) -> Tensor:
        first, kv = call.inputs
        heads = first.shape[2] if call.kind == "matmul_qk" else first.shape[1]
        return call.run(first, kv[:, :, pick(heads, kv.shape[2])])

    return emulate


def _modulo(heads: int, kv_heads: int) -> list[int]:
    return [head % kv_heads for head in range(heads)]


def _one_wrong(heads: int, kv_heads: int) -> list[int]:
    right = [head // (heads // kv_heads) for head in range(heads)]
    return [*right[:-1], (right[-1] + 1) % kv_heads]


def _token_axis(call: Call) -> int:
    """Scores and probs are [B, H, S, T]; everything else is [B, S, ...]."""
    return 2 if call.kind in ("matmul_qk", "causal_softmax") else 1


def _row(change: Callable[[Tensor], None]) -> Emulation:
    """Change the output with its token axis first."""

    def emulate(call: Call) -> Tensor:
        value = call.run().clone()
        change(value.movedim(_token_axis(call), 0))
        return value

    return emulate


def _stale(rows: Tensor) -> None:
    rows[-1] = rows[-2] if len(rows) > 1 else 0.0


def _zero(rows: Tensor) -> None:
    rows[len(rows) // 2] = 0.0


def _duplicate(rows: Tensor) -> None:
    middle = len(rows) // 2
    rows[middle] = rows[middle - 1]


def _nan_row(rows: Tensor) -> None:
    rows[len(rows) // 2] = torch.nan


def _set_middle(number: float) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value.view(-1)[value.numel() // 2] = number
        return value

    return change


def _activation(activate: Callable[[Tensor], Tensor]) -> Emulation:
    def emulate(call: Call) -> Tensor:
        up, gate = call.inputs
        return activate(gate) * up

    return emulate


def _experts_not_weighted(call: Call) -> Tensor:
    return call.inputs[0].sum(-2)


def _residual_doubled(call: Call) -> Tensor:
    residual, branch = call.inputs
    return residual + branch + residual


def _k_tail(count: int) -> Emulation:
    def emulate(call: Call) -> Tensor:
        if call.kind == "linear":
            (x,), (weight, *bias) = call.inputs, call.weights
            return call.run(x[..., :-count], weights=(weight[:, :-count], *bias))
        q, k = call.inputs
        return call.run(q[..., :-count], k[..., :-count])

    return emulate


def _norm_weight_plus_1(call: Call) -> Tensor:
    return call.run(weights=(call.weights[0] + 1,))


def _embedding_shifted(call: Call) -> Tensor:
    (ids,), (table,) = call.inputs, call.weights
    return call.run((ids + 1) % table.shape[0])


def _embedding_scale_exact(call: Call) -> Tensor:
    """The scale is not rounded to the type of the table before it multiplies."""
    (ids,), (table,) = call.inputs, call.weights
    rows = F.embedding(ids, table).to(wide(table.dtype))
    return torch.mul(rows, call.attrs["scale"]).to(table.dtype)


def _untied(call: Call) -> Tensor:
    """Another matrix than the embedding: its rows in reverse order."""
    return call.run(weights=(call.weights[0].flip(0),))


def _truncated(call: Call) -> Tensor:
    """Round toward zero from the next wider type instead of to nearest."""
    dtype = call.inputs[0].dtype
    exact_dtype, bits, dropped = _WIDER[dtype]
    operands = (
        tuple(x.to(exact_dtype) if x.is_floating_point() else x for x in group)
        for group in (call.inputs, call.weights)
    )
    inputs, weights = operands
    exact = call.run(*inputs, weights=weights)
    return (exact.view(bits) & ~((1 << dropped) - 1)).view(exact_dtype).to(dtype)


def _two_units_larger(value: Tensor) -> Tensor:
    """Every element two representable values further from zero."""
    away = torch.full_like(value, torch.inf).copysign(value)
    return torch.nextafter(torch.nextafter(value, away), away)


def _quantised(scheme: Scheme) -> Emulation:
    def emulate(call: Call) -> Tensor:
        (x,), (weight, *bias) = call.inputs, call.weights
        x, weight = scheme.operands(x, weight)
        return call.run(x, weights=(weight, *bias))

    return emulate


# For each type: the wider one, its bits as an integer, and how many bits it has more.
_WIDER = {
    torch.bfloat16: (torch.float32, torch.int32, 16),
    torch.float16: (torch.float32, torch.int32, 13),
    torch.float32: (torch.float64, torch.int64, 29),
    torch.float64: (torch.float64, torch.int64, 1),
}


def _bf16_accumulation(call: Call) -> Tensor:
    """Sum over K in blocks of 32, the running sum kept in bfloat16."""
    if call.kind == "linear":
        (x,), (weight, *bias) = call.inputs, call.weights
        total = _blocked(x, weight.T)
        return total + bias[0] if bias else total
    a, b = call.inputs
    if call.kind == "matmul_qk":
        k = b.transpose(1, 2).repeat_interleave(a.shape[2] // b.shape[2], 1)
        scores = _blocked(a.transpose(1, 2), k.transpose(2, 3))
        return torch.mul(scores, call.attrs["scale"])
    v = b.transpose(1, 2).repeat_interleave(a.shape[1] // b.shape[2], 1)
    return _blocked(a, v).transpose(1, 2).contiguous()


def _blocked(a: Tensor, b: Tensor) -> Tensor:
    total: Tensor | None = None
    for start in range(0, a.shape[-1], 32):
        part = a[..., start : start + 32] @ b[..., start : start + 32, :]
        total = part.bfloat16() if total is None else (total.float() + part.float()).bfloat16()
    assert total is not None
    return total.to(a.dtype)


def _fp16_overflow(value: Tensor) -> Tensor:
    """An intermediate at 2^k times the value passes 65504: the largest eighth becomes Inf."""
    limit = value.abs().max() * 0.875
    return value.masked_fill(value > limit, torch.inf).masked_fill(value < -limit, -torch.inf)


EMULATIONS: dict[str, Emulation] = {
    "eps_outside": _eps_outside,
    "norm_after_rope": _norm_after_rope,
    "norm_weight_plus_1": _norm_weight_plus_1,
    "mask_plus_1": _masked(1),
    "mask_minus_1": _masked(-1),
    "no_mask": _masked(1 << 30),
    "mask_without_past": _mask_without_past,
    "rope_restarts": _rope_restarts,
    "cache_lost": _with_cache(_lost),
    "cache_not_written": _with_cache(_not_written),
    "cache_one_early": _with_cache(_one_early),
    "kv_modulo": _with_heads(_modulo),
    "kv_wrong_head": _with_heads(_one_wrong),
    "stale_last_token": _row(_stale),
    "zero_row": _row(_zero),
    "duplicate_row": _row(_duplicate),
    "nan_row": _row(_nan_row),
    "gelu": _activation(F.gelu),
    "silu": _activation(F.silu),
    "quick_gelu": _activation(lambda gate: gate * torch.sigmoid(1.702 * gate)),
    "no_activation": _activation(lambda gate: gate),
    "experts_not_weighted": _experts_not_weighted,
    "residual_doubled": _residual_doubled,
    "k_tail_16": _k_tail(16),
    "k_tail_32": _k_tail(32),
    "k_tail_64": _k_tail(64),
    "embedding_shifted": _embedding_shifted,
    "embedding_scale_exact": _embedding_scale_exact,
    "untied": _untied,
    "scale_1.02": _after(lambda value: value * 1.02),
    "scale_2": _after(lambda value: value * 2),
    "truncated": _truncated,
    "biased_2_units": _after(_two_units_larger),
    **{name: _quantised(scheme) for name, scheme in SCHEMES.items()},
    "bf16_accumulation": _bf16_accumulation,
    "fp16_overflow": _after(_fp16_overflow),
    "one_nan": _after(_set_middle(torch.nan)),
    "one_inf": _after(_set_middle(torch.inf)),
}
