"""Owns the correct alternatives to the reference's arithmetic: none may be called wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goldenctl.reference.faulty import Call
from goldenctl.reference.ops import KERNELS, wide

Alternative = Callable[[Call], Tensor | None]


def _wide_inside(dtype: torch.dtype) -> Alternative:
    """The whole op in a wider type, rounded once at its end."""

    def compute(call: Call) -> Tensor | None:
        stored = call.inputs[0].dtype
        if call.kind == "embedding":
            return None
        inputs, weights = (
            tuple(x.to(dtype) if x.is_floating_point() else x for x in group)
            for group in (call.inputs, call.weights)
        )
        return KERNELS[call.kind](call.attrs, inputs, weights).to(stored)

    return compute


def _split_k(call: Call) -> Tensor | None:
    """A linear layer's sum over K in four parts, added in float32."""
    if call.kind != "linear":
        return None
    (x,), (weight, *bias) = call.inputs, call.weights
    kind = wide(x.dtype)
    parts = zip(x.to(kind).chunk(4, -1), weight.to(kind).chunk(4, 1), strict=True)
    total = sum(a @ b.T for a, b in parts)
    assert isinstance(total, Tensor)
    return (total + bias[0].to(kind) if bias else total).to(x.dtype)


def _one_rounding_norm(call: Call) -> Tensor | None:
    """RMSNorm that multiplies by the weight before it rounds."""
    if call.kind != "rms_norm":
        return None
    (x,), (weight,) = call.inputs, call.weights
    xw = x.to(wide(x.dtype))
    scale = torch.rsqrt(xw.pow(2).mean(-1, keepdim=True) + call.attrs["epsilon"])
    return (xw * weight.to(xw.dtype) * scale).to(x.dtype)


def _scale_in_product(call: Call) -> Tensor | None:
    """Scores whose scale is inside the product: one rounding instead of two."""
    if call.kind != "matmul_qk":
        return None
    q, k = call.inputs
    kind = wide(q.dtype)
    scaled = q.to(kind) * call.attrs["scale"]
    attrs = {**call.attrs, "scale": 1.0}
    return KERNELS["matmul_qk"](attrs, (scaled, k.to(kind)), ()).to(q.dtype)


def _fast_silu(call: Call) -> Tensor | None:
    """SiLU by way of tanh, which agrees with the logistic function up to rounding."""
    if call.kind != "swiglu":
        return None
    up, gate = (x.to(wide(x.dtype)) for x in call.inputs)
    return (gate * (0.5 * torch.tanh(0.5 * gate) + 0.5) * up).to(call.inputs[0].dtype)


def _exp2_softmax(call: Call) -> Tensor | None:
    """Softmax by powers of two, as fused attention kernels make it."""
    if call.kind != "causal_softmax":
        return None
    scores, *padding = call.inputs
    scores = scores.to(wide(scores.dtype))
    token, key_token = scores.shape[-2:]
    hidden = torch.ones(token, key_token, dtype=torch.bool).triu(key_token - token + 1)
    if padding:
        hidden = hidden | ~padding[0][:, None, None, :].bool()
    log2 = (scores * 1.4426950408889634).masked_fill(hidden, torch.finfo(scores.dtype).min)
    powers = torch.exp2(log2 - log2.amax(-1, keepdim=True))
    return (powers / powers.sum(-1, keepdim=True)).to(call.inputs[0].dtype)


ALTERNATIVES: dict[str, Alternative] = {
    "float64 inside": _wide_inside(torch.float64),
    "float32 inside": _wide_inside(torch.float32),
    "split-K, fp32 sums": _split_k,
    "one-rounding RMSNorm": _one_rounding_norm,
    "scale inside the product": _scale_in_product,
    "SiLU by tanh": _fast_silu,
    "softmax by exp2": _exp2_softmax,
}
