"""Words for an error that no known fault explains: what its own numbers look like.

A statement is made only where it is true of the numbers by themselves: a scale where scaling
the expected values leaves little of the error, a dtype where the noise is within a factor of two
of that dtype's rounding, "only" where the rest is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES

Values = NDArray[np.float64]
Test = Callable[[Values, Values, float, tuple[str, ...]], str]
_REMAINDER = 0.02  # of the error, which a full explanation may leave
_ROUNDED = 0.25  # the same, where rounding leaves it
_TYPICAL = 0.25  # of an element's error, which it may leave of most of them
_CONCENTRATED = 0.99  # of the squared error, in at most half of an axis
_MAX_NAMED = 6
_FEW = 8  # a fit to fewer elements says nothing
# The relative L2 error that rounding to a type makes, in its epsilons: 1.7e-3 in bfloat16.
_ONE_ROUNDING = 0.21
_LARGE = 0.3  # relative: from here on noise no longer keeps a row's length or a set of values


def describe_error(
    actual: NDArray[Any], expected: NDArray[Any], dims: tuple[str, ...], dtype: str
) -> list[str]:
    """Return what the error looks like, most specific first; empty when like nothing known.

    These are descriptions, not causes: each is tested on the numbers themselves. NaN and Inf
    that both sides have in the same places are passed over.
    """
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    unlike = unlike_classes(a, e)
    if unlike.any():
        return list(_non_finite(a, e, unlike, dims))
    a, e = (np.where(np.isfinite(e), side, 0.0) for side in (a, e))
    with np.errstate(all="ignore"):
        error = float(np.linalg.norm(a - e))
        if error == 0.0 or not math.isfinite(np.linalg.norm(a) ** 2 + np.linalg.norm(e) ** 2):
            return []
        return _described(a, e, error, dims, dtype)


def _described(a: Values, e: Values, error: float, dims: tuple[str, ...], dtype: str) -> list[str]:
    # A result in dtype is rounded once more, unless that is all there is.
    rounding = DTYPES[dtype].eps / 2 * float(np.linalg.norm(a))
    rest = max(_REMAINDER * error, min(rounding, _ROUNDED * error))
    found = [said for tests in _TESTS if (said := _first(tests, a, e, rest, dims))]
    where = list(_where(a, e, dims, dtype))
    if not where:
        found += _size(a, e, error, dtype)
    return [*found, *where] or list(_last_resort(a, e, error, rest, dtype))


def _first(
    tests: tuple[Test, ...], a: Values, e: Values, rest: float, dims: tuple[str, ...]
) -> str:
    return next((said for test in tests if (said := test(a, e, rest, dims))), "")


def unlike_classes(a: NDArray[Any], e: NDArray[Any]) -> NDArray[np.bool_]:
    """Where one of finite, NaN, +Inf, -Inf stands against another."""
    same: NDArray[np.bool_] = np.where(
        np.isfinite(e), np.isfinite(a), (a == e) | (np.isnan(a) & np.isnan(e))
    )
    return ~same


def _non_finite(
    a: Values, e: Values, unlike: NDArray[np.bool_], dims: tuple[str, ...]
) -> Iterator[str]:
    one_sided = int(np.count_nonzero(unlike & (np.isfinite(a) != np.isfinite(e))))
    other = int(np.count_nonzero(unlike)) - one_sided
    if one_sided:
        yield f"{one_sided} of {a.size} elements are NaN or Inf on one side"
    if other:
        said = "elements are NaN, Inf or -Inf on both sides, but not the same one"
        yield f"{other} of {a.size} {said}"
    for axis, name in enumerate(dims):
        others = tuple(i for i in range(unlike.ndim) if i != axis)
        hit = np.flatnonzero(unlike.any(axis=others))
        if 0 < len(hit) <= unlike.shape[axis] // 2:
            yield f"only at {name} {_list(hit)}"


def _explains(a: Values, e: Values, fit: Values, rest: float) -> bool:
    """Whether ``fit`` leaves little of the error, and little of most elements' errors too, of which
    it makes no more than half larger: the norm alone is that of one element where it dwarfs the
    others."""
    if float(np.linalg.norm(a - fit)) > rest:
        return False
    moved = (a != e) | (np.abs(fit - e) > 1e-12 * np.abs(e))
    left, before = np.abs(a - fit)[moved], np.abs(a - e)[moved]
    if left.size < _FEW or float(np.mean(left < before)) < 0.5:
        return False
    return float(np.median(left)) <= _TYPICAL * float(np.median(before))


def _scale(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    energy = float(np.vdot(e, e))
    factor = float(np.vdot(e, a)) / energy if energy else 0.0
    return f"constant scale {_factor(factor)}" if _explains(a, e, factor * e, rest) else ""


def _offset(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    offset = float(np.mean(a - e))
    return f"constant offset {offset:.5g}" if _explains(a, e, e + offset, rest) else ""


def _scale_and_offset(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    centred = e - e.mean()
    energy = float(np.vdot(centred, centred))
    factor = float(np.vdot(centred, a)) / energy if energy else 1.0
    offset = float(a.mean()) - factor * float(e.mean())
    if not _explains(a, e, factor * e + offset, rest):
        return ""
    return f"constant scale {_factor(factor)} and offset {offset:.5g}"


def _row_scales(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    """Each row, a slice of the last axis, has a factor of its own: as of a norm."""
    if a.ndim < 2 or a.shape[-1] < _FEW:
        return ""
    factors = _best_factors(a, e)
    if not _explains(a, e, factors * e, rest):
        return ""
    used = factors[(e**2).sum(-1, keepdims=True) > 0]
    if used.min() <= 0.0:  # rows that are zero are no scale
        return ""
    return f"each row scaled by a factor of its own, {_factor(used.min())} to {_factor(used.max())}"


def _best_factors(a: Values, e: Values) -> Values:
    """The factor s of each row of the last axis that makes s·e nearest to a; 1 for zero rows."""
    energy = (e * e).sum(-1, keepdims=True)
    product = (a * e).sum(-1, keepdims=True)
    factors: Values = np.divide(product, energy, out=np.ones_like(energy), where=energy > 0)
    return factors


def _factor(factor: float) -> str:
    """Digits enough to tell it from 1."""
    apart = abs(factor - 1.0)
    digits = 5 if apart == 0.0 else max(5, 2 - math.floor(math.log10(apart)))
    return f"{factor:.{min(digits, 17)}g}"


def _signs(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    left = float(np.linalg.norm(np.abs(a) - np.abs(e)))
    flipped = int(np.count_nonzero(a * e < 0.0))
    return f"sign flips ({flipped} of {a.size})" if left <= rest and flipped else ""


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
    left = float(np.linalg.norm(a - np.clip(e, -limit, limit)))
    several = np.count_nonzero((np.abs(a) == limit) & (np.abs(e) > limit)) > 1
    return f"saturated at {limit:.5g}" if several and limit and left <= rest else ""


def _one_value(a: Values, e: Values, rest: float, _dims: tuple[str, ...]) -> str:
    """Elements have one common value, and all others are right: memory that was not written,
    where they fill a block, or what an activation cuts off."""
    values, counts = np.unique(a, return_counts=True)
    value = float(values[int(counts.argmax())])
    same = a == value
    wrong = same & (e != value)
    share = float(wrong.sum()) / a.size
    if share < 0.02 or wrong.sum() < 4 or float(np.linalg.norm((a - e)[~wrong])) > rest:
        return ""
    below = bool(np.all(e[wrong] < value)) and float(a.min()) >= value
    above = bool(np.all(e[wrong] > value)) and float(a.max()) <= value
    said = f"{share:.0%} of the elements are {value:.5g}"
    if _is_block(same, wrong):
        return said if below or above else f"{said}: unwritten or zeroed memory"
    if below or above:
        return f"{said}: all that should be {'below' if below else 'above'} it"
    return f"{said}, and should not be"


def _is_block(same: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> bool:
    """Whether ``same`` fills the smallest block of whole indices around ``wrong``, or the whole
    memory from its first to its last."""
    picked = []
    for axis in range(wrong.ndim):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        picked.append(np.flatnonzero(wrong.any(axis=others)))
    flat = np.flatnonzero(wrong)
    return bool(same[np.ix_(*picked)].all() or same.reshape(-1)[flat[0] : flat[-1] + 1].all())


def _truncation(a: Values, e: Values, _rest: float, _dims: tuple[str, ...]) -> str:
    """Nearly every error points toward zero, and is less than the last place of some type."""
    wrong = a != e
    size, error = np.abs(e)[wrong], np.abs(a - e)[wrong]
    toward = np.count_nonzero((np.abs(a) < np.abs(e))[wrong])
    if error.size < _FEW or toward <= 0.95 * error.size or np.any(error > size):
        return ""
    relative = np.sort(error / size)
    largest, middle = float(relative[int(0.99 * (len(relative) - 1))]), float(np.median(relative))
    units = (DTYPES[name].eps for name in ("float32", "float16", "bfloat16"))
    unit = next((eps for eps in units if largest <= eps), None)
    # Cut digits are spread evenly from none to one unit; a scale moves all alike.
    spread = 0.2 * largest < middle < 0.8 * largest
    return "truncation bias (errors point to zero)" if unit is not None and spread else ""


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
    return "grows along the tokens" if rising and late > 2 * early else ""


# Of each group the first that is true is said.
_TESTS: tuple[tuple[Test, ...], ...] = (
    (_scale, _offset, _scale_and_offset, _row_scales, _truncation),
    (_signs,),
    (_permutation,),
    (_saturation,),
    (_one_value,),
    (_growth,),
)


def _where(a: Values, e: Values, dims: tuple[str, ...], dtype: str) -> Iterator[str]:
    """Axes on which few indices carry nearly all of the error: "only" where the rest is right."""
    difference = a - e
    squares = difference**2
    total = float(squares.sum())
    for axis, name in enumerate(dims):
        others = tuple(i for i in range(difference.ndim) if i != axis)
        energy = squares.sum(axis=others)
        order = np.argsort(-energy)
        needed = int(np.searchsorted(np.cumsum(energy[order]), _CONCENTRATED * total)) + 1
        if difference.shape[axis] > 1 and needed <= difference.shape[axis] // 2:
            hit, rest = np.sort(order[:needed]), order[needed:]
            left = math.sqrt(float(energy[rest].sum()))
            norm = float(np.linalg.norm(e.take(rest, axis)))
            how = "only" if left <= _noise(dtype) * norm else "mostly"
            yield f"{how} {name} {_list(hit)}{_stride(hit)}"


def _noise(dtype: str) -> float:
    """The relative L2 error up to which a tensor counts as right here; as the table of
    tolerances has it for a product."""
    return (4.0 if DTYPES[dtype].itemsize == 2 else 64.0) * DTYPES[dtype].eps


def _size(a: Values, e: Values, error: float, dtype: str) -> Iterator[str]:
    """Noise of the size of another type's rounding: within a factor of two, and no scale."""
    relative = error / max(float(np.linalg.norm(e)), 1e-300)
    along = error**2 - float(((a - _best_factors(a, e) * e) ** 2).sum()) if a.ndim else 0.0
    by_scale = along / error**2
    width = a.shape[-1] if a.ndim else 1
    for other in ("bfloat16", "float16"):
        eps = DTYPES[other].eps
        typical = _ONE_ROUNDING * eps
        spread = float(np.abs(a - e).max()) <= 2 * eps * float(np.abs(e).max())
        noise = spread and by_scale <= 0.25 + 2.0 / width
        if eps > DTYPES[dtype].eps and typical / 2 <= relative <= 2 * typical and noise:
            yield f"noise of the size of {other} rounding (relative {relative:.1e})"
            return


def _last_resort(a: Values, e: Values, error: float, rest: float, dtype: str) -> Iterator[str]:
    """What is true of large errors that have no other pattern."""
    size = float(np.linalg.norm(e))
    if error <= _LARGE * size:
        return
    values = float(np.linalg.norm(np.sort(a, axis=None) - np.sort(e, axis=None)))
    lengths = np.linalg.norm(a, axis=-1) - np.linalg.norm(e, axis=-1) if a.ndim else np.ones(1)
    if values <= max(DTYPES[dtype].eps / 2, 1e-6) * size:
        yield "the same values in another order"
    elif a.shape[-1:] > (1,) and float(np.linalg.norm(lengths)) <= rest:
        yield "each row keeps its length but not its direction: a rotation"
    else:
        relative = f"{error / size:.2g}" if size else "all of it"
        yield f"a large error (relative {relative})"


def _list(indices: NDArray[Any]) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:_MAX_NAMED])
    return f"{shown}, ... ({len(indices)})" if len(indices) > _MAX_NAMED else shown


def _stride(hit: NDArray[Any]) -> str:
    steps = np.unique(np.diff(hit))
    return f", every {int(steps[0])}th" if len(hit) > 2 and len(steps) == 1 and steps[0] > 1 else ""
