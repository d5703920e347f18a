"""The sums that a block of two tensors is reduced to, and how blocks are joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPE_CODES = {"float64": 0, "float32": 1, "bfloat16": 2, "float16": 3}


@dataclass(slots=True)
class Partial:
    """Sums over one range of elements, in the order of ``partial_t`` in kernel.c.

    Sums, maxima and ``compared`` are over positions that are finite on both sides.
    ``worst_index`` is the first index of ``max_error`` (-1 when there is no error),
    ``first_mismatch`` the first index where the classes finite, NaN, +Inf, -Inf differ.
    """

    actual_squared: float = 0.0
    expected_squared: float = 0.0
    dot: float = 0.0
    error_squared: float = 0.0
    error_sum: float = 0.0
    max_error: float = 0.0
    max_expected: float = 0.0
    worst_index: int = -1
    first_mismatch: int = -1
    max_ulp: int = 0
    compared: int = 0
    outside: int = 0
    mismatches: int = 0
    nan_actual: int = 0
    inf_actual: int = 0
    nan_expected: int = 0
    inf_expected: int = 0


ADDED = (
    "actual_squared", "expected_squared", "dot", "error_squared", "error_sum", "compared",
    "outside", "mismatches", "nan_actual", "inf_actual", "nan_expected", "inf_expected",
)  # fmt: skip


def join(partials: Iterable[Partial]) -> Partial:
    """Add up the partials of consecutive ranges, given in order."""
    total = Partial()
    for part in partials:
        for name in ADDED:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        if part.max_error > total.max_error:
            total.max_error, total.worst_index = part.max_error, part.worst_index
        if total.first_mismatch < 0:
            total.first_mismatch = part.first_mismatch
        total.max_expected = max(total.max_expected, part.max_expected)
        total.max_ulp = max(total.max_ulp, part.max_ulp)
    return total


ROW_SUMS = (
    "error_squared", "max_error", "expected_squared", "signed_error", "units", "units_squared",
)  # fmt: skip


@dataclass(frozen=True)
class RowErrors:
    """Errors per row of ``row_length`` consecutive elements, filled by ``metrics.score``.

    ``error_squared`` is each row's sum of squared errors, ``max_error`` its largest absolute
    error, ``expected_squared`` its sum of squared expected values; float64, one per row.
    ``signed_error`` is the sum of errors away from zero less those toward it, ``units`` the sum
    of the powers of two at or below each expected value's magnitude (times a type's epsilon that
    is its unit in the last place), ``units_squared`` that of their squares.
    Positions that are not finite on both sides count as zero in all of them.
    """

    row_length: int
    error_squared: NDArray[np.float64]
    max_error: NDArray[np.float64]
    expected_squared: NDArray[np.float64]
    signed_error: NDArray[np.float64] = field(default_factory=partial(np.zeros, 1))
    units: NDArray[np.float64] = field(default_factory=partial(np.zeros, 1))
    units_squared: NDArray[np.float64] = field(default_factory=partial(np.zeros, 1))

    @property
    def sums(self) -> tuple[Array, ...]:
        """The sums in the order of ``ROW_SUMS``."""
        return tuple(getattr(self, name) for name in ROW_SUMS)

    @classmethod
    def of(cls, expected: Array, row_length: int | None = None) -> RowErrors:
        """Make room for the rows of ``expected``: of its last axis, or of ``row_length``.

        Raises ValueError when the rows do not divide the tensor.
        """
        length = row_length or (expected.shape[-1] if expected.ndim else 1)
        if length < 1 or expected.size % length:
            message = f"rows of {length} do not divide a tensor of {expected.size} elements"
            raise ValueError(message)
        rows = expected.size // length
        return cls(length, *(np.zeros(rows) for _ in ROW_SUMS))


@dataclass(frozen=True)
class Job:
    """Two flat contiguous arrays of one size, and how to judge their elements."""

    actual: Array
    expected: Array
    atol: float
    rtol: float
    rows: RowErrors | None = None
