"""Owns how each op of the graph becomes launches over views (docs/plan-protocol.md).

Shapes: B batch, S token, T key token, H query heads, K key/value heads, G = H / K, D
head_dim, N rows, M columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from goldenctl.ops.plan import Lowering, PlanOp, View

Views = tuple[View, ...]
Attrs = Mapping[str, Any]


def _embedding(tap: str, out: View, inputs: Views, weights: Views, _attrs: Attrs) -> list[PlanOp]:
    (ids,), (table,) = inputs, weights
    count = math.prod(ids.shape)
    return [PlanOp("gather", tap, _rows(out), (table, ids.reshape(count)))]


def _rms_norm(tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs) -> list[PlanOp]:
    (x,), (weight,) = inputs, weights
    flat = _tokens if len(x.shape) == 4 else _rows
    return [PlanOp("rms_norm", tap, flat(out), (flat(x), weight), epsilon=attrs["epsilon"])]


def _linear(tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs) -> list[PlanOp]:
    (x,), (weight, *bias) = inputs, weights
    x = x.take(1, x.shape[1] - 1) if attrs.get("last_token") else _linear_rows(x)
    out = out.reshape(x.shape[0], weight.shape[0])
    matrix = weight if attrs.get("transposed") else weight.permute(1, 0)
    gemm = PlanOp("gemm", tap, out, (x, matrix), alpha=1.0, beta=float(len(bias)))
    copies = [PlanOp("rearrange", tap, out, (b.expand(0, x.shape[0]),)) for b in bias]
    return [*copies, gemm]


def _rope(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    x, positions, sin, cos = inputs
    args = (_tokens(x), positions.reshape(math.prod(positions.shape)), sin, cos)
    return [PlanOp("rope", tap, _tokens(out), args, algo=attrs["algo"])]


def _matmul_qk(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    kv_heads = k.shape[2]
    a = q.permute(0, 2, 1, 3).split(1, kv_heads)  # [B, K, G, S, D]
    b = k.permute(0, 2, 3, 1).expand(2, a.shape[2])  # [B, K, G, D, T]
    c = out.split(1, kv_heads)  # [B, K, G, S, T]
    return [PlanOp("gemm", tap, c, (a, b), alpha=attrs["scale"], beta=0.0)]


def _causal_softmax(
    tap: str, out: View, inputs: Views, _weights: Views, _attrs: Attrs
) -> list[PlanOp]:
    scores, *padding = inputs  # [B, H, S, T]
    batch, heads, token, key_token = scores.shape
    shape = (batch * heads, token, key_token)
    if not padding:
        return [PlanOp("causal_softmax", tap, out.reshape(*shape), (scores.reshape(*shape),))]
    # What is added to hide padding, [B, T]; then the softmax in place.
    added = padding[0].expand(1, token).expand(1, heads)
    softmax = PlanOp("causal_softmax", tap, out.reshape(*shape), (out.reshape(*shape),))
    return [PlanOp("add", tap, out, (scores, added)), softmax]


def _matmul_pv(tap: str, out: View, inputs: Views, _weights: Views, _attrs: Attrs) -> list[PlanOp]:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    kv_heads = v.shape[2]
    a = probs.split(1, kv_heads)  # [B, K, G, S, T]
    b = v.permute(0, 2, 1, 3).expand(2, a.shape[2])  # [B, K, G, T, D]
    c = out.permute(0, 2, 1, 3).split(1, kv_heads)  # [B, K, G, S, D]
    return [PlanOp("gemm", tap, c, (a, b), alpha=1.0, beta=0.0)]


def _sdpa(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    q, k, v = (x.permute(0, 2, 1, 3) for x in inputs)  # [B, heads, tokens, D]
    return [PlanOp("sdpa", tap, out.permute(0, 2, 1, 3), (q, k, v), alpha=attrs["scale"])]


def _elementwise(kind: str) -> Lowering:
    def lower(tap: str, out: View, inputs: Views, _weights: Views, _attrs: Attrs) -> list[PlanOp]:
        return [PlanOp(kind, tap, _rows(out), tuple(_rows(x) for x in inputs))]

    return lower


def _rows(view: View) -> View:
    """[..., M] -> [N, M]."""
    return view.reshape(math.prod(view.shape[:-1]), view.shape[-1])


def _tokens(view: View) -> View:
    """[B, S, heads, D] -> [B * S, heads, D]."""
    return view.reshape(view.shape[0] * view.shape[1], *view.shape[2:])


def _linear_rows(view: View) -> View:
    """[B, S, ...] -> [B * S, M]: a linear's input, its heads merged."""
    return view.reshape(view.shape[0] * view.shape[1], math.prod(view.shape[2:]))


LOWERINGS: dict[str, Lowering] = {
    "embedding": _embedding,
    "rms_norm": _rms_norm,
    "linear": _linear,
    "rope": _rope,
    "matmul_qk": _matmul_qk,
    "causal_softmax": _causal_softmax,
    "matmul_pv": _matmul_pv,
    "sdpa": _sdpa,
    "swiglu": _elementwise("swiglu"),
    "add": _elementwise("add"),
    "copy": _elementwise("rearrange"),
}
