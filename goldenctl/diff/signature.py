"""Owns the words for an error that no known fault explains: what its own numbers look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.golden.dtypes import DTYPES

Values = NDArray[np.float64]
_REMAINDER = 0.02  # of the error, which a full explanation may leave
_ROUNDED = 0.25  # the same, where rounding leaves it
_CONCENTRATED = 0.99  # of the squared error, in at most half of an axis
_MAX_NAMED = 6


def describe_error(
    actual: NDArray[Any], expected: NDArray[Any], dims: tuple[str, ...], dtype: str
) -> list[str]:
    """Return what the error looks like, most specific first; empty when like nothing known.

    These are descriptions, not causes: each is tested on the numbers themselves.
    """
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(e)
    if not finite.all():
        return list(_non_finite(finite, dims))
    error = float(np.linalg.norm(a - e))
    if error == 0.0:
        return []
    # A result in dtype is rounded once more, unless that is all there is.
    rounding = DTYPES[dtype].eps / 2 * float(np.linalg.norm(a))
    rest = max(_REMAINDER * error, min(rounding, _ROUNDED * error))
    found = [text for test in _TESTS if (text := test(a, e, rest, dims))]
    return [*found, *_where(a - e, dims), *_size(a, e, error, dtype)] or list(_seed_rules(a, e))


def _non_finite(finite: NDArray[np.bool_], dims: tuple[str, ...]) -> Iterator[str]:
    bad = ~finite
    yield f"{int(bad.sum())} of {bad.size} elements are NaN or Inf on one side"
    for axis, name in enumerate(dims):
        others = tuple(i for i in range(bad.ndim) if i != axis)
        hit = np.flatnonzero(bad.any(axis=others))
        if 0 < len(hit) <= bad.shape[axis] // 2:
            yield f"only at {name} {_list(hit)}"


def _scale(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    energy = float(np.vdot(e, e))
    factor = float(np.vdot(e, a)) / energy if energy else 0.0
    left = float(np.linalg.norm(a - factor * e))
    return f"constant scale {factor:.5g}" if left <= rest else ""


def _offset(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    offset = float(np.mean(a - e))
    left = float(np.linalg.norm(a - e - offset))
    return f"constant offset {offset:.5g}" if left <= rest else ""


def _signs(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    left = float(np.linalg.norm(np.abs(a) - np.abs(e)))
    flipped = int(np.count_nonzero(np.signbit(a) != np.signbit(e)))
    return f"sign flips ({flipped} of {a.size})" if left <= rest else ""


def _permutation(a: Values, e: Values, rest: float, dims: tuple[str, ...]) -> str:
    """Some order of one axis, the same for all others, makes it right."""
    for axis, name in enumerate(dims):
        if not 1 < a.shape[axis] <= 4096:
            continue
        rows_a = np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1)
        rows_e = np.moveaxis(e, axis, 0).reshape(a.shape[axis], -1)
        distance = (rows_a**2).sum(1)[:, None] - 2 * rows_a @ rows_e.T + (rows_e**2).sum(1)[None, :]
        order = distance.argmin(1)
        if np.array_equal(order, np.arange(len(order))):
            continue
        if float(np.linalg.norm(rows_a - rows_e[order])) > rest:
            continue
        steps = np.unique(order - np.arange(len(order)))
        if len(set(order.tolist())) < len(order):
            repeated = np.flatnonzero(order != np.arange(len(order)))
            return f"{name} {_list(repeated)} repeats another {name}"
        shift = int(steps[0]) if len(steps) == 1 else None
        return f"shifted by {shift} along {name}" if shift else f"{name} axis permuted"
    return ""


def _saturation(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    limit = float(np.abs(a).max())
    clipped = np.clip(e, -limit, limit)
    left = float(np.linalg.norm(a - clipped))
    return f"saturated at {limit:.5g}" if left <= rest else ""


def _unwritten(a: Values, e: Values, _rest: float, _dims: tuple[str, ...]) -> str:
    values, counts = np.unique(a, return_counts=True)
    most = int(counts.argmax())
    wrong = (a == values[most]) & (e != values[most])
    share = float(wrong.sum()) / a.size
    if (
        share < 0.02
        or wrong.sum() < 4
        or float(np.abs((a - e)[~wrong]).max(initial=0)) > 0.05 * (float(np.abs(e).max()))
    ):
        return ""
    return f"{share:.0%} of the elements are {values[most]:.5g}: unwritten or zeroed memory"


def _truncation(a: Values, e: Values, _rest: float, _dims: tuple[str, ...]) -> str:
    """Nearly every error points toward zero."""
    wrong = a != e
    toward = np.count_nonzero(wrong & (np.abs(a) < np.abs(e)))
    count = int(wrong.sum())
    small = float(np.linalg.norm(a - e)) < 0.02 * float(np.linalg.norm(e))
    return "truncation bias (errors point to zero)" if small and toward > 0.95 * count else ""


def _growth(a: Values, e: Values, _rest: float, dims: tuple[str, ...]) -> str:
    if "token" not in dims or a.shape[dims.index("token")] < 8:
        return ""
    axis = dims.index("token")
    others = tuple(i for i in range(a.ndim) if i != axis)
    norm = np.sqrt((e**2).sum(axis=others))
    relative = np.sqrt(((a - e) ** 2).sum(axis=others)) / np.where(norm > 0, norm, 1.0)
    half = len(relative) // 2
    early, late = float(relative[:half].mean()), float(relative[half:].mean())
    if float(np.ptp(relative)) == 0.0:
        return ""
    rising = float(np.corrcoef(np.arange(len(relative)), relative)[0, 1]) > 0.9
    return "grows along the tokens (accumulation)" if rising and late > 2 * early else ""


_TESTS: tuple[Callable[[Values, Values, float, tuple[str, ...]], str], ...] = (
    _scale,
    _offset,
    _signs,
    _permutation,
    _saturation,
    _unwritten,
    _truncation,
    _growth,
)


def _where(difference: Values, dims: tuple[str, ...]) -> Iterator[str]:
    """Axes on which few indices carry nearly all of the error."""
    total = float((difference**2).sum())
    for axis, name in enumerate(dims):
        others = tuple(i for i in range(difference.ndim) if i != axis)
        energy = (difference**2).sum(axis=others)
        order = np.argsort(-energy)
        needed = int(np.searchsorted(np.cumsum(energy[order]), _CONCENTRATED * total)) + 1
        if difference.shape[axis] > 1 and needed <= difference.shape[axis] // 2:
            hit = np.sort(order[:needed])
            yield f"only {name} {_list(hit)}{_stride(hit)}"


def _size(a: Values, e: Values, error: float, dtype: str) -> Iterator[str]:
    """Noise of the size of another type's rounding."""
    relative = error / max(float(np.linalg.norm(e)), 1e-300)
    for other in ("bfloat16", "float16"):
        eps = DTYPES[other].eps
        if eps > DTYPES[dtype].eps and 0.05 * eps <= relative <= 2 * eps:
            yield f"noise of the size of {other} rounding (relative {relative:.1e})"
            return


def _seed_rules(a: Values, e: Values) -> Iterator[str]:
    """The four rules of thumb that porting guides give."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(e))
    cosine = float(np.vdot(a, e)) / norms if norms else 0.0
    mse = float(np.mean((a - e) ** 2))
    relative = float(np.linalg.norm(a - e)) / max(float(np.linalg.norm(e)), 1e-300)
    if cosine >= 0.99 and mse > 1e-4:
        yield "high cosine with high MSE: a scale or a bias"
    elif cosine < 0.99 and mse <= 1e-4:
        yield "low cosine with low MSE: a rotation or another order"
    elif relative > 0.5:
        yield "high relative error: an op is missing or out of order"


def _list(indices: NDArray[Any]) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:_MAX_NAMED])
    return f"{shown}, ... ({len(indices)})" if len(indices) > _MAX_NAMED else shown


def _stride(hit: NDArray[Any]) -> str:
    steps = np.unique(np.diff(hit))
    return f", every {int(steps[0])}th" if len(hit) > 2 and len(steps) == 1 and steps[0] > 1 else ""
