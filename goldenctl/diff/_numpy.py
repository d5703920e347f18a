"""The metrics in NumPy: the same numbers as kernel.c, where that was not compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.sums import Array, Job, Partial

_EXPONENT = 0x7FF << 52  # of a float64: what is left of a magnitude is a power of two
_Doubles = NDArray[np.float64]


def score_range(job: Job, start: int, end: int) -> Partial:
    """Score elements ``start`` to ``end``; fills the job's rows, which start at ``start``."""
    actual, expected = job.actual[start:end], job.expected[start:end]
    # Overflow to Inf is a result here (a sum of huge squares, a rounding to float16).
    with np.errstate(all="ignore"):
        x, y = actual.astype(np.float64), expected.astype(np.float64)
        part = Partial()
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            _count_non_finite(x, y, start, part)
            x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
            actual = np.where(finite, actual, np.zeros((), actual.dtype))
            expected = np.where(finite, expected, np.zeros((), expected.dtype))
        part.compared = int(np.count_nonzero(finite))
        part.max_ulp = _max_ulp(actual, expected)
        _add_sums(job, x, y, start, part)
    return part


def _count_non_finite(x: _Doubles, y: _Doubles, start: int, part: Partial) -> None:
    part.nan_actual, part.inf_actual = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    part.nan_expected, part.inf_expected = int(np.isnan(y).sum()), int(np.isinf(y).sum())
    differ = np.flatnonzero(_classes(x) != _classes(y))
    part.mismatches = part.outside = differ.size
    if differ.size:
        part.first_mismatch = start + int(differ[0])


def _classes(x: _Doubles) -> NDArray[np.int8]:
    """0 finite, 1 NaN, 2 +Inf, 3 -Inf, as in kernel.c."""
    infinite: NDArray[np.int8] = np.isinf(x) * (np.int8(2) + np.signbit(x).astype(np.int8))
    return infinite + np.isnan(x).astype(np.int8)


def _add_sums(job: Job, x: _Doubles, y: _Doubles, start: int, part: Partial) -> None:
    part.actual_squared, part.expected_squared = float(x @ x), float(y @ y)
    part.dot = float(x @ y)
    difference = x - y
    squared = difference * difference
    error, size = np.abs(difference), np.abs(y)
    part.error_squared, part.error_sum = float(squared.sum()), float(error.sum())
    part.max_error, part.max_expected = float(error.max()), float(size.max())
    if part.max_error > 0.0:
        part.worst_index = start + int(error.argmax())
    part.outside += x.size - int(np.count_nonzero(error <= job.atol + job.rtol * size))
    if job.rows is not None:
        length = job.rows.row_length
        rows = slice(start // length, (start + x.size) // length)
        job.rows.error_squared[rows] = squared.reshape(-1, length).sum(axis=1)
        job.rows.max_error[rows] = error.reshape(-1, length).max(axis=1)
        job.rows.expected_squared[rows] = (y * y).reshape(-1, length).sum(axis=1)
        away = np.copysign(1.0, y) * difference
        units = (y.view(np.int64) & _EXPONENT).view(np.float64)
        job.rows.signed_error[rows] = away.reshape(-1, length).sum(axis=1)
        job.rows.units[rows] = units.reshape(-1, length).sum(axis=1)
        job.rows.units_squared[rows] = (units * units).reshape(-1, length).sum(axis=1)


def _max_ulp(actual: Array, expected: Array) -> int:
    """Return the largest ULP distance of finite values, in the type of ``expected``.

    A 64-bit actual reaches a 16-bit type by way of float32, as in kernel.c.
    """
    if actual.dtype != expected.dtype:
        if actual.dtype.itemsize == 8:
            actual = actual.astype(np.float32)
        actual = actual.astype(expected.dtype)
    bits = expected.dtype.itemsize * 8
    x, y = _ordered(actual, bits), _ordered(expected, bits)
    upper, lower = np.maximum(x, y), np.minimum(x, y)
    unsigned: Any = np.dtype(f"u{bits // 8}")
    return int((upper.view(unsigned) - lower.view(unsigned)).max())


def _ordered(values: Array, bits: int) -> NDArray[Any]:
    """Map floats to integers in the same order; -0 and +0 both map to 0."""
    raw = values.view(np.dtype(f"i{bits // 8}"))
    magnitude = raw & np.iinfo(raw.dtype).max
    result: NDArray[Any] = np.where(raw < 0, -magnitude, magnitude)
    return result
