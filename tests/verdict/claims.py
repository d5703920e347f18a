"""What each statement about an error claims, checked on the numbers by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DIMS = ("batch", "token", "hidden")
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
TYPES: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
Array = NDArray[Any]


def _explained(a: Array, e: Array, fit: Array) -> None:
    """Nine tenths of the squared error, and at least half of the elements that moved."""
    assert np.sum((a - fit) ** 2) <= 0.1 * np.sum((a - e) ** 2)
    # A row that is equal gets a factor of 1 but for the last bits of the fit.
    moved = (a != e) | (np.abs(fit - e) > 1e-12 * np.abs(e))
    assert np.mean((np.abs(a - fit) < np.abs(a - e))[moved]) >= 0.5


def _is_scale(a: Array, e: Array, _dtype: str, factor: str) -> None:
    assert float(factor) != 1.0
    _explained(a, e, float(factor) * e)


def _is_offset(a: Array, e: Array, _dtype: str, offset: str) -> None:
    assert float(offset) != 0.0
    _explained(a, e, e + float(offset))


def _is_both(a: Array, e: Array, _dtype: str, factor: str, offset: str) -> None:
    _explained(a, e, float(factor) * e + float(offset))


def _is_row_scale(a: Array, e: Array, _dtype: str, low: str, high: str) -> None:
    fits = []
    for x, y in zip(a.reshape(-1, a.shape[-1]), e.reshape(-1, a.shape[-1]), strict=True):
        factor = np.linalg.lstsq(y[:, None], x, rcond=None)[0][0]
        assert float(low) * (1 - 1e-4) - 1e-9 <= factor <= float(high) * (1 + 1e-4) + 1e-9
        fits.append(factor * y)
    _explained(a, e, np.reshape(fits, e.shape))


def _is_truncation(a: Array, e: Array, _dtype: str) -> None:
    wrong = a != e
    assert np.mean((np.abs(a) < np.abs(e))[wrong]) > 0.9
    relative = (np.abs(a - e) / np.abs(np.where(e == 0, 1, e)))[wrong]
    assert np.quantile(relative, 0.9) <= EPS["bfloat16"]
    assert np.std(relative) > 0.05 * np.max(relative)  # one factor for all is no truncation


def _is_signs(a: Array, e: Array, _dtype: str, count: str, size: str) -> None:
    assert int(count) == np.sum((a < 0) & (e > 0) | (a > 0) & (e < 0)) > 0
    assert int(size) == a.size
    assert np.sum((np.abs(a) - np.abs(e)) ** 2) <= 0.1 * np.sum((a - e) ** 2)


def _slices(a: Array, e: Array, axis: str) -> tuple[Array, Array]:
    number = DIMS.index(axis)
    return tuple(np.moveaxis(x, number, 0).reshape(x.shape[number], -1) for x in (a, e))  # type: ignore[return-value]


def _is_order(a: Array, e: Array, _dtype: str, axis: str) -> None:
    """Each slice of actual is one of expected, and not all stand where they should."""
    ours, theirs = _slices(a, e, axis)
    for row in ours:
        nearest = min(float(np.sum((row - other) ** 2)) for other in theirs)
        assert nearest <= 0.1 * np.sum((a - e) ** 2)
    assert not np.array_equal(ours, theirs)


def _is_repeat(a: Array, e: Array, dtype: str, _which: str, axis: str) -> None:
    _is_order(a, e, dtype, axis)


def _is_shift(a: Array, e: Array, dtype: str, _by: str, axis: str) -> None:
    _is_order(a, e, dtype, axis)


def _is_saturated(a: Array, e: Array, _dtype: str, limit: str) -> None:
    bound = float(limit)
    assert np.isclose(np.abs(a).max(), bound, rtol=1e-4)
    assert np.sum((np.abs(e) > bound) & np.isclose(np.abs(a), bound, rtol=1e-4)) > 1
    small = np.abs(e) < bound
    assert np.sum((a - e)[small] ** 2) <= 0.1 * np.sum((a - e) ** 2)


def _has_value(a: Array, e: Array, share: str, value: str) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = np.isclose(a, float(value), rtol=1e-4, atol=1e-12) & (a != e)
    assert abs(wrong.mean() - float(share) / 100) < 0.0051
    assert np.sum((a - e)[~wrong] ** 2) <= 0.1 * np.sum((a - e) ** 2)
    return wrong


def _is_unwritten(a: Array, e: Array, _dtype: str, share: str, value: str) -> None:
    """Together, as memory lies, or whole channels or tokens; and not those of one side of it."""
    wrong = _has_value(a, e, share, value)
    assert np.any(e[wrong] > float(value)) | np.any(a < float(value))
    assert np.any(e[wrong] < float(value)) | np.any(a > float(value))
    where = np.flatnonzero(wrong)
    runs = 1 + np.sum(np.diff(where) > 1)
    whole = [wrong.any(axis=tuple(i for i in range(3) if i != n)).sum() for n in range(3)]
    assert runs <= 3 or wrong.sum() >= 0.95 * np.prod(whole)


def _is_one_sided(a: Array, e: Array, _dtype: str, share: str, value: str, side: str) -> None:
    wrong = _has_value(a, e, share, value)
    assert np.all(e[wrong] < float(value)) if side == "below" else np.all(e[wrong] > float(value))


def _is_value(a: Array, e: Array, _dtype: str, share: str, value: str) -> None:
    _has_value(a, e, share, value)


def _is_growth(a: Array, e: Array, _dtype: str) -> None:
    relative = np.linalg.norm(a - e, axis=(0, 2)) / np.linalg.norm(e, axis=(0, 2))
    assert relative[-3:].mean() > 1.5 * relative[:3].mean()


def _is_only(a: Array, e: Array, dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    rest = np.delete(np.arange(e.shape[DIMS.index(axis)]), [int(i) for i in which.split(", ")])
    x, y = (side.take(rest, DIMS.index(axis)) for side in (a, e))
    epsilons = 64 if dtype == "float32" else 4
    assert np.linalg.norm(x - y) <= 1.01 * epsilons * EPS[dtype] * np.linalg.norm(y)


def _is_mostly(a: Array, e: Array, _dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    number = DIMS.index(axis)
    hit = (a - e).take([int(i) for i in which.split(", ")], number)
    assert np.sum(hit**2) >= 0.98 * np.sum((a - e) ** 2)


def _is_noise(a: Array, e: Array, dtype: str, other: str, relative: str) -> None:
    """As large as what rounding to the type does to this very tensor, and no scale."""
    assert EPS[other] > EPS[dtype]
    measured = np.linalg.norm(a - e) / np.linalg.norm(e)
    assert np.isclose(measured, float(relative), rtol=0.05)
    rounded = e.astype(TYPES[other]).astype(np.float64)
    assert 0.35 <= measured / (np.linalg.norm(rounded - e) / np.linalg.norm(e)) <= 2.9
    factor = np.sum(a * e) / np.sum(e * e)
    assert np.linalg.norm(a - factor * e) > 0.7 * np.linalg.norm(a - e)


def _is_reordered(a: Array, e: Array, dtype: str) -> None:
    np.testing.assert_allclose(
        np.sort(a, axis=None), np.sort(e, axis=None), atol=EPS[dtype] * np.linalg.norm(e)
    )


def _is_rotation(a: Array, e: Array, _dtype: str) -> None:
    np.testing.assert_allclose(
        np.linalg.norm(a, axis=-1), np.linalg.norm(e, axis=-1), atol=0.03 * np.linalg.norm(a - e)
    )


def _is_large(a: Array, e: Array, _dtype: str, relative: str) -> None:
    assert np.isclose(np.linalg.norm(a - e) / np.linalg.norm(e), float(relative), rtol=0.1)


def _is_one_side(a: Array, e: Array, _dtype: str, count: str) -> None:
    assert int(count) == np.sum(np.isfinite(a) ^ np.isfinite(e)) > 0


def _is_other(a: Array, e: Array, _dtype: str, count: str) -> None:
    both = ~np.isfinite(a) & ~np.isfinite(e)
    assert int(count) == np.sum(both & (a != e) & ~(np.isnan(a) & np.isnan(e))) > 0


def _is_only_at(a: Array, e: Array, _dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    number = DIMS.index(axis)
    rest = np.delete(np.arange(e.shape[number]), [int(i) for i in which.split(", ")])
    x, y = (side.take(rest, number) for side in (a, e))
    assert np.array_equal(np.isfinite(x), np.isfinite(y))


NUMBER = r"(-?[\d.]+(?:e[-+]\d+)?)"
CLAIMS: dict[str, Callable[..., None]] = {
    rf"constant scale {NUMBER}": _is_scale,
    rf"constant offset {NUMBER}": _is_offset,
    rf"constant scale {NUMBER} and offset {NUMBER}": _is_both,
    rf"each row scaled by a factor of its own, {NUMBER} to {NUMBER}": _is_row_scale,
    r"truncation bias \(errors point to zero\)": _is_truncation,
    r"sign flips \((\d+) of (\d+)\)": _is_signs,
    r"(\w+) axis permuted": _is_order,
    r"\w+ ([\d, .()]+) repeats another (\w+)": _is_repeat,
    r"shifted by (-?\d+) along (\w+)": _is_shift,
    rf"saturated at {NUMBER}": _is_saturated,
    rf"(\d+)% of the elements are {NUMBER}: unwritten or zeroed memory": _is_unwritten,
    rf"(\d+)% of the elements are {NUMBER}: all that should be (below|above) it": _is_one_sided,
    rf"(\d+)% of the elements are {NUMBER}(?:, and should not be)?": _is_value,
    r"grows along the tokens": _is_growth,
    r"only (batch|token|hidden) ([\d, .()]+?)(?:, every \d+th)?": _is_only,
    r"mostly (batch|token|hidden) ([\d, .()]+?)(?:, every \d+th)?": _is_mostly,
    rf"noise of the size of (\w+) rounding \(relative {NUMBER}\)": _is_noise,
    r"the same values in another order": _is_reordered,
    r"each row keeps its length but not its direction: a rotation": _is_rotation,
    rf"a large error \(relative {NUMBER}\)": _is_large,
    r"(\d+) of \d+ elements are NaN or Inf on one side": _is_one_side,
    r"(\d+) of \d+ elements are NaN, Inf or -Inf on both sides, but not the same one": _is_other,
    r"only at (\w+) ([\d, .()]+)": _is_only_at,
}  # fmt: skip
