"""Owns how far rounding may move each element of an op's result in any correct implementation,
as standard deviations (docs/budgets.md derives them)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from goldenctl.dtypes import DTYPES
from goldenctl.model.graph import Op

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


def noise_of(
    op: Op, unit: Unit, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], exact: Tensor
) -> Noise:
    """Return the noise of an op with these operands, whose exact result is ``exact``."""
    args = tuple(inputs[name] for name in op.inputs)
    last = exact.abs() * (unit.store * math.sqrt(ROUNDINGS.get(op.kind, 1)) * _UNIFORM)
    if op.kind in SHARED:
        row = SHARED[op.kind](unit, args, exact)
        return Noise(last, exact * (row / _norm(exact).clamp_min(torch.finfo(exact.dtype).tiny)))
    before = BEFORE[op.kind](unit, args, tuple(weights[name] for name in op.weights), exact)
    return Noise(torch.hypot(last, before), None)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def _none(
    _unit: Unit, _inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    return torch.zeros_like(out)


def _of_sum(unit: Unit, count: int, size: Tensor) -> Tensor:
    """A sum of ``count`` terms in any order: each of its roundings errs by u / sqrt(3) of a
    partial sum, which is at most of ``size`` (Higham and Mary, A New Approach to Probabilistic
    Rounding Error Analysis, 2019)."""
    return size * (unit.sum * math.sqrt(count) * _UNIFORM)


def _linear(
    unit: Unit, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # Partial sums are of the size of the result, or of a random walk over the terms.
    x, weight = inputs[0].flatten(2)[:, -out.shape[1] :], weights[0]  # [B, S, K], [N, K]
    walk = (x.pow(2) @ weight.pow(2).T).sqrt()
    return _of_sum(unit, x.shape[-1], torch.hypot(out, walk.reshape(out.shape)))


def _matmul_qk(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]; out [B, H, S, T]
    squares = k.pow(2).repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    walk = torch.einsum("bshd,bthd->bhst", q.pow(2), squares).sqrt()
    return _of_sum(unit, q.shape[-1], torch.hypot(out, walk * q.shape[-1] ** -0.5))


def _matmul_pv(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]; out [B, S, H, D]
    squares = v.pow(2).repeat_interleave(probs.shape[1] // v.shape[2], dim=2)
    walk = torch.einsum("bhst,bthd->bshd", probs.pow(2), squares).sqrt()
    return _of_sum(unit, probs.shape[-1], torch.hypot(out, walk))


def _rope(
    unit: Unit, _inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # Two products may be rounded to the stored type before they are added: together they are
    # of the size of the pair, not of their sum.
    first, second = out.chunk(2, dim=-1)
    pair = torch.hypot(first, second) / math.sqrt(2)
    return torch.cat([pair, pair], dim=-1) * (unit.store * _UNIFORM)


def _swiglu(
    unit: Unit, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...], out: Tensor
) -> Tensor:
    # exp(-g) errs by u |g|; a fast exp and the division add a few u.
    return out.abs() * (inputs[1].abs() + 4.0) * (_UNIFORM * unit.sum)


def _rms_norm(unit: Unit, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    # The mean square of n terms; its root halves the relative error.
    return 0.5 * _of_sum(unit, inputs[0].shape[-1], _norm(out))


def _softmax(unit: Unit, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
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


# How often a correct implementation may round to the stored type on the way: before and
# after the norm's weight, the scores' scale, the gate's activation, the softmax's division.
ROUNDINGS = {"rms_norm": 2, "matmul_qk": 2, "causal_softmax": 2, "swiglu": 2}
# What comes before the last rounding: standard deviations of each element, [..., n].
Before = Callable[[Unit, tuple[Tensor, ...], tuple[Tensor, ...], Tensor], Tensor]
BEFORE: dict[str, Before] = {
    "embedding": _none,
    "linear": _linear,
    "rope": _rope,
    "matmul_qk": _matmul_qk,
    "matmul_pv": _matmul_pv,
    "swiglu": _swiglu,
    "add": _none,
}
# The same as one factor on the whole row, from the sum that it is divided by: it comes through
# a linear layer whole, where independent errors would average out. Of the row's norm, [..., 1].
SHARED: dict[str, Callable[[Unit, tuple[Tensor, ...], Tensor], Tensor]] = {
    "rms_norm": _rms_norm,
    "causal_softmax": _softmax,
}
