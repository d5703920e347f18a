"""Errors of many kinds, made up: each changes expected values into wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Make = Callable[[Array, np.random.Generator], Array]


def _noise(e: Array, rng: np.random.Generator) -> Array:
    return e * (1 + rng.standard_normal(e.shape) * 10.0 ** rng.uniform(-6, 1))


def _dominated(e: Array, rng: np.random.Generator) -> Array:
    """One element is most of the tensor, and it alone errs."""
    e.flat[rng.integers(e.size)] = 1e4
    return np.where(np.abs(e) == 1e4, e * 1.0001, e)


def _near_one(e: Array, rng: np.random.Generator) -> Array:
    return e * (1.0001 + rng.standard_normal(e.shape) * 1e-3)


def _norm_epsilon(e: Array, rng: np.random.Generator) -> Array:
    """Small rows, normed with another epsilon."""
    mean_square = (e**2).mean(-1, keepdims=True) * 10.0 ** rng.uniform(-6, -3, (*e.shape[:2], 1))
    return e * np.sqrt((mean_square + 1e-6) / (mean_square + 1e-12)) ** rng.choice([-1e-3, 1.0])


def _dropped_tail(e: Array, rng: np.random.Generator) -> Array:
    x, w = rng.standard_normal((*e.shape[:2], 64)), rng.standard_normal((64, e.shape[-1]))
    cut = int(rng.integers(1, 9))
    e[:] = x @ w
    return x[..., :-cut] @ w[:-cut]


def _relu(e: Array, _rng: np.random.Generator) -> Array:
    return np.maximum(e, 0.0)


def _relu_of_gate(e: Array, rng: np.random.Generator) -> Array:
    gate, up = 3 * rng.standard_normal((2, *e.shape))
    e[:] = gate / (1 + np.exp(-gate)) * up
    return np.maximum(gate, 0.0) * up


def _zeroed_tail(e: Array, rng: np.random.Generator) -> Array:
    a = e.copy()
    a.reshape(-1)[-int(rng.integers(4, e.size)) :] = 0.0
    return a


def _zeroed_channels(e: Array, rng: np.random.Generator) -> Array:
    a = e.copy()
    a[..., rng.choice(e.shape[-1], 3, replace=False)] = 0.0
    return a


def _scattered_zeros(e: Array, rng: np.random.Generator) -> Array:
    return np.where(rng.random(e.shape) < 0.3, 0.0, e)


def _massive_channel(e: Array, rng: np.random.Generator) -> Array:
    """All is scaled, but one channel is most of it."""
    e[..., 5] *= 1e3
    return e * (1 + 10.0 ** rng.uniform(-5, -1))


def _clamped(e: Array, rng: np.random.Generator) -> Array:
    return np.clip(e, *np.sort(rng.standard_normal(2)))


def _cut_digits(e: Array, rng: np.random.Generator) -> Array:
    kept = 2.0 ** (np.floor(np.log2(np.abs(e) + 1e-30)) - int(rng.integers(4, 14)))
    return np.trunc(e / kept) * kept


def _int8(e: Array, _rng: np.random.Generator) -> Array:
    step = np.abs(e).max(-1, keepdims=True) / 127
    return np.round(e / step) * step


def _grown(e: Array, rng: np.random.Generator) -> Array:
    ramp = np.linspace(0.001, 0.1, e.shape[1]).reshape(1, -1, 1)
    return e * (1 + ramp * np.sign(rng.standard_normal(e.shape)))


def _signs(e: Array, rng: np.random.Generator) -> Array:
    return e * rng.choice([-1.0, 1.0], e.shape)


def _order(e: Array, rng: np.random.Generator) -> Array:
    axis = int(rng.integers(1, 3))
    return np.take(e, rng.integers(0, e.shape[axis], e.shape[axis]), axis)


def _scrambled(e: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(e.reshape(-1)).reshape(e.shape)


def _rotated(e: Array, rng: np.random.Generator) -> Array:
    turn, _ = np.linalg.qr(rng.standard_normal((e.shape[-1],) * 2))
    return e @ turn


def _few_tokens(e: Array, rng: np.random.Generator) -> Array:
    a = e + rng.standard_normal(e.shape) * 10.0 ** rng.uniform(-9, -3)
    a[:, rng.integers(e.shape[1])] += rng.standard_normal(e.shape[-1])
    return a


def _not_finite(e: Array, rng: np.random.Generator) -> Array:
    e.flat[rng.integers(0, e.size, 9)] = rng.choice([np.nan, np.inf, -np.inf], 9)
    a = e * 1.5
    if rng.random() < 0.5:
        a.flat[rng.integers(0, e.size, 5)] = np.nan
    return a


def _scaled(e: Array, rng: np.random.Generator) -> Array:
    return e * (1 + 10.0 ** rng.uniform(-7, 1))


def _moved(e: Array, rng: np.random.Generator) -> Array:
    return e * rng.choice([1.0, 1.1]) + 10.0 ** rng.uniform(-7, 1)


KINDS: tuple[Make, ...] = (
    _noise, _dominated, _near_one, _norm_epsilon, _dropped_tail, _relu, _relu_of_gate,
    _zeroed_tail, _zeroed_channels, _scattered_zeros, _massive_channel, _clamped, _cut_digits,
    _int8, _grown, _signs, _order, _scrambled, _rotated, _few_tokens, _not_finite, _scaled, _moved,
)  # fmt: skip
