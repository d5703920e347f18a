"""Owns the arithmetic of every op in PyTorch, with the rounding points of Hugging Face's
eager models.

Where the model computes in float32 inside a narrower type, so do we; a float64 recording is
float64 throughout. Shapes: B batch, S token, T key token, H query heads, K key/value heads,
D head_dim, M hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Kernel = Callable[[Mapping[str, Any], tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type for sums and transcendental functions: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


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


def linear(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> Tensor:
    (x,) = inputs
    return F.linear(x, *weights)  # rounds once, after the bias


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


def matmul_qk(
    attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    k = repeat_kv(k.transpose(1, 2).contiguous(), q.shape[2])
    scores = torch.matmul(q.transpose(1, 2), k.transpose(2, 3))
    return scores.mul_(attrs["scale"])  # rounds twice


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


def matmul_pv(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    context = torch.matmul(probs, repeat_kv(v.transpose(1, 2), probs.shape[1]))
    return context.transpose(1, 2).contiguous()  # [B, S, H, D]


def swiglu(
    _attrs: Mapping[str, Any], inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    up, gate = inputs
    return F.silu(gate) * up  # rounds after silu and after the product


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


KERNELS: dict[str, Kernel] = {
    "embedding": embedding,
    "rms_norm": rms_norm,
    "linear": linear,
    "rope": rope,
    "matmul_qk": matmul_qk,
    "causal_softmax": causal_softmax,
    "matmul_pv": matmul_pv,
    "swiglu": swiglu,
    "add": add,
}
