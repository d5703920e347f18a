"""How far an op's result moves when its inputs do, without computing the result again.

Budgets need the distance between two results to a percent. The difference of two results that
are nearly equal has that only in a type that is wide enough for the results; here the
differences themselves are carried, so that float32 is enough for a float32 model. Each function
is exact up to rounding, for small moves and for large ones.

Moves are ``[P, B, ...]``, P passes beside the tensor ``[B, ...]`` that they start from. Shapes:
B batch, S token, T key token, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.model.graph import Op
from goldenctl.reference.expert_kernels import chosen
from goldenctl.reference.kernels import KERNELS, norm_rows, norm_weight

Tensors = tuple[Tensor, ...]
# Of an op, its inputs, their moves (None where one stays), its weights and its result.
Response = Callable[[Op, Tensors, tuple[Tensor | None, ...], Tensors, Tensor], Tensor]

_MOST = 80.0  # whose exp() float32 holds; a score that moves further moves by this


def respond(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], weights: Tensors, result: Tensor
) -> Tensor:
    """Return how far ``result`` moves, ``[P, *result.shape]`` in the type of the moves."""
    moved = RESPONSES.get(op.kind, _difference)(op, inputs, moves, weights, result)
    return moved.reshape(-1, *result.shape)


def _difference(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], weights: Tensors, result: Tensor
) -> Tensor:
    """Any op: the difference of two results in float64."""
    passes = next(len(move) for move in moves if move is not None)
    before = [x.double() if x.is_floating_point() else x for x in inputs]
    after = [
        x.expand(passes, *x.shape) if move is None else x + move
        for x, move in zip(before, moves, strict=True)
    ]
    wide = tuple(weight.double() for weight in weights)
    moved = KERNELS[op.kind](op.attrs, tuple(x.flatten(0, 1) for x in after), wide)
    stayed = KERNELS[op.kind](op.attrs, tuple(before), wide)
    return (torch.unflatten(moved, 0, (passes, -1)) - stayed).to(result.dtype)


def _in_first(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, _result: Tensor
) -> Tensor:
    """An op that is linear in its first input."""
    (move, *_) = moves
    assert move is not None
    return KERNELS[op.kind](op.attrs, (move, *inputs[1:]), ())


def _add(
    _op: Op, _inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, _out: Tensor
) -> Tensor:
    first, second = moves
    assert first is not None
    assert second is not None
    return first + second


def _linear(
    _op: Op, _inputs: Tensors, moves: tuple[Tensor | None, ...], weights: Tensors, _out: Tensor
) -> Tensor:
    (move,) = moves
    assert move is not None
    if move.dim() == 5:
        move = move.flatten(3)  # [P, B, S, H * D]
    return F.linear(move.to(weights[0].dtype), weights[0]).to(move.dtype)


def _rms_norm(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], weights: Tensors, _out: Tensor
) -> Tensor:
    (x,), (move,) = inputs, moves
    assert move is not None
    if op.attrs.get("merged"):
        move = move.flatten(3)
    x, weight = norm_rows(op.attrs, x), norm_weight(op.attrs, weights[0])
    square = x.pow(2).mean(-1, keepdim=True) + op.attrs["epsilon"]
    grown = (move * (move + 2.0 * x)).mean(-1, keepdim=True)  # of the square
    before = square.rsqrt()
    change = before * torch.expm1(-0.5 * torch.log1p(grown / square))
    return torch.addcmul(move * (before + change), x, change).mul_(weight)


def _matmul_qk(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, _out: Tensor
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    by_q, by_k = moves
    assert by_q is not None
    assert by_k is not None
    keys, kv_heads = k.permute(0, 2, 3, 1), k.shape[2]  # [B, K, D, T]
    moved = _grouped((q + by_q) * op.attrs["scale"], kv_heads) @ by_k.permute(0, 1, 3, 4, 2)
    moved += _by_shared(_grouped(by_q * op.attrs["scale"], kv_heads), keys)
    return moved  # [P, B, K, G * S, T]


def _matmul_pv(
    _op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, _out: Tensor
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    by_probs, by_v = moves
    assert by_probs is not None
    kv_heads, tokens = v.shape[2], probs.shape[2]
    moved = _by_shared(_head_groups(by_probs, kv_heads), v.permute(0, 2, 1, 3))
    if by_v is not None:
        values = by_v.permute(0, 1, 3, 2, 4)  # [P, B, K, T, D]
        moved = moved + _head_groups(probs + by_probs, kv_heads) @ values
    heads = torch.unflatten(moved, 3, (-1, tokens)).flatten(2, 3)  # [P, B, H, S, D]
    return heads.transpose(2, 3)


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """[P, B, S, H, D] -> [P, B, K, G * S, D]: the rows that meet the same keys."""
    return torch.unflatten(q, 3, (kv_heads, -1)).permute(0, 1, 3, 4, 2, 5).flatten(3, 4)


def _head_groups(probs: Tensor, kv_heads: int) -> Tensor:
    """[P, B, H, S, T] -> [P, B, K, G * S, T]."""
    return torch.unflatten(probs, 2, (kv_heads, -1)).flatten(3, 4)


def _by_shared(rows: Tensor, shared: Tensor) -> Tensor:
    """[P, B, K, R, n] by [B, K, n, m]: one product of the rows of all passes."""
    product = rows.permute(1, 2, 0, 3, 4).flatten(2, 3) @ shared
    return torch.unflatten(product, 2, (len(rows), -1)).permute(2, 0, 1, 3, 4)


def _softmax(
    _op: Op, _inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, out: Tensor
) -> Tensor:
    (move, *_) = moves
    assert move is not None
    # From their mean on, the sum of the powers is at least 1 (Jensen), whatever moves.
    powers = move - (out * move).sum(-1, keepdim=True)
    powers.clamp_(max=_MOST).expm1_()
    mean = (out * powers).sum(-1, keepdim=True)
    return powers.sub_(mean).mul_(out).div_(1.0 + mean)


def _swiglu(
    _op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], _weights: Tensors, _out: Tensor
) -> Tensor:
    (up, gate), (by_up, by_gate) = inputs, moves
    assert by_up is not None
    assert by_gate is not None
    # tanh(a) - tanh(b) = tanh(a - b) (1 - tanh(a) tanh(b)), and sigmoid(x) = (1 + tanh(x / 2)) / 2
    after = torch.tanh((gate + by_gate) * 0.5)
    sigmoid = (1.0 - after * torch.tanh(gate * 0.5)).mul_(torch.tanh(by_gate * 0.5))
    silu = torch.addcmul(sigmoid.mul_(gate), by_gate, after.add_(1.0)).mul_(0.5)  # its move
    return torch.addcmul(silu.mul_(up + by_up), by_up, F.silu(gate))


def _expert_linear(
    op: Op, inputs: Tensors, moves: tuple[Tensor | None, ...], weights: Tensors, out: Tensor
) -> Tensor:
    (x, routing), (move, by_routing) = inputs, moves
    assert move is not None
    assert by_routing is not None
    after = routing + by_routing
    before, now = chosen(op.attrs, routing), chosen(op.attrs, after)
    stays = (now == before).unsqueeze(-1)  # [P, ..., k, 1]
    if x.dim() == routing.dim():
        x, move = x.unsqueeze(-2), move.unsqueeze(-2)
    # Where another expert was chosen, all of its result is a move, and all of the other's.
    operand = torch.where(stays, move, x + move).to(weights[0].dtype)
    moved = KERNELS[op.kind](op.attrs, (operand, after), weights).to(move.dtype)
    return torch.where(stays, moved, moved - out)


RESPONSES: dict[str, Response] = {
    "rms_norm": _rms_norm,
    "linear": _linear,
    "rope": _in_first,
    "matmul_qk": _matmul_qk,
    "causal_softmax": _softmax,
    "matmul_pv": _matmul_pv,
    "swiglu": _swiglu,
    "expert_linear": _expert_linear,
    "add": _add,
}
