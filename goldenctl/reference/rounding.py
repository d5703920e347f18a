"""What kernels and their noise are made of: types, unit roundoffs, sums, squares of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goldenctl.dtypes import DTYPES

Attrs = Mapping[str, Any]
Kernel = Callable[[Attrs, tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
# What comes before the last rounding: standard deviations of each element, [..., n], from the
# op's parameters, inputs, squares of its weights (``squared``) and exact result.
Before = Callable[["Unit", Attrs, tuple[Tensor, ...], tuple[Tensor, ...], Tensor], Tensor]
# The same as one factor on the whole row, from the sum that it is divided by: it comes through
# a linear layer whole, where independent errors would average out. Of the row's norm, [..., 1].
Shared = Callable[["Unit", Attrs, tuple[Tensor, ...], Tensor], Tensor]

# A uniform rounding error of one unit roundoff u has a standard deviation of u / sqrt(3).
UNIFORM = 1 / math.sqrt(3)


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


def of_sum(unit: Unit, count: int, size: Tensor) -> Tensor:
    """A sum of ``count`` terms in any order: each of its roundings errs by u / sqrt(3) of a
    partial sum, which is at most of ``size`` (Higham and Mary, A New Approach to Probabilistic
    Rounding Error Analysis, 2019)."""
    return size * (unit.sum * math.sqrt(count) * UNIFORM)


def row_norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def squared(unit: Unit, weight: Tensor) -> Tensor:
    """Return the squares of a weight [..., N, K] as noise is made of it, in float32 at least. In
    16 bits, where what sums lose is a thousandth of the last rounding, they are means over K,
    [..., N, 1], which need no product."""
    weight = weight if weight.dtype == torch.float64 else weight.float()
    if weight.dim() < 2 or unit.store == unit.sum:
        return weight.square()
    return row_norm(weight).square() / weight.shape[-1]


def terms(x: Tensor, squares: Tensor) -> Tensor:
    """What squared weights are multiplied by."""
    return x.square() if squares.shape[-1] > 1 else x.square().sum(-1, keepdim=True)
