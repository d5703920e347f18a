"""The rule for a reference that is not finite itself: its rows cannot be judged by their values.

A row of the reference that holds NaN or Inf is left out of every score and budget, and counted.
NaN, +Inf and -Inf have to stand where the reference has them; only where the recorded budget shows
that the truth is finite may an engine be finite too, since the reference alone overflowed
(docs/budgets.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from goldenctl.diff.metrics import RowErrors, score
from goldenctl.diff.padding import Padding
from goldenctl.diff.sums import Array
from goldenctl.records.metrics import Metrics

NO_REFERENCE = "the reference is not finite here, so there is nothing to judge by"
_BLOCK = 1 << 20
# Metrics that are of all rows, judged or not.
_COUNTS = ("count", "nan_actual", "nan_expected", "inf_actual", "inf_expected")


@dataclass(frozen=True)
class Compared:
    """Two tensors of one shape, scored where the reference is finite.

    ``actual`` and ``expected`` are the rows that count, ``counted`` says which these are,
    ``rows`` their errors, None without an element. ``not_judged`` rows are left out, padding
    apart; in ``only_reference`` of them the reference alone is not finite. ``metrics`` count NaN
    and Inf, and where they differ, of all rows but padding.
    """

    actual: Array
    expected: Array
    counted: Padding
    rows: RowErrors | None
    metrics: Metrics
    not_judged: int = 0
    only_reference: int = 0

    @property
    def finite(self) -> bool:
        """Whether NaN and Inf are where the reference has them, and something is left to judge."""
        return self.metrics.mismatches == 0 and self.metrics.compared > 0

    @property
    def unjudged(self) -> bool:
        """Whether nothing is left to judge, since no row of the reference is finite."""
        m = self.metrics
        return not m.mismatches and not m.compared and m.nan_expected + m.inf_expected > 0


def compared(
    actual: Array,
    expected: Array,
    padding: Padding,
    *,
    rtol: float = 0.0,
    op: str = "",
    sound: Callable[[], NDArray[np.bool_] | None] = lambda: None,
) -> Compared:
    """Score ``actual`` against ``expected``, whole tensors; ``padding`` says what counts.

    ``sound`` tells of each row of the reference whether the truth is finite there, None where
    that is not known; it is asked only where NaN and Inf differ.
    """
    whole = _scored(actual, expected, padding, rtol)
    total = whole.metrics
    if not total.nan_expected + total.inf_expected or not expected.ndim:
        return whole
    finite = 0
    if total.mismatches:
        excused = _excused(actual, expected, op, sound())
        actual = np.where(excused, expected, actual)
        finite = int(np.count_nonzero(excused.reshape(-1, excused.shape[-1]).any(axis=1)))
    left = _scored(actual, expected, padding, rtol).metrics if finite else total
    judged = _scored(actual, expected, finite_rows(expected, padding), rtol)
    same = {name: getattr(total, name) for name in _COUNTS}
    metrics = structs.replace(
        judged.metrics, **same, mismatches=left.mismatches, first_mismatch=left.first_mismatch
    )
    left_out = judged.counted.count - padding.count
    return replace(judged, metrics=metrics, not_judged=left_out, only_reference=finite)


def _scored(actual: Array, expected: Array, counted: Padding, rtol: float) -> Compared:
    got, right = counted.without(actual), counted.without(expected)
    rows = RowErrors.of(right) if right.size else None
    metrics = score(got, right, atol=0.0, rtol=rtol, rows=rows)
    return Compared(got, right, counted, rows, metrics)


def _excused(
    actual: Array, expected: Array, op: str, sound: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Where ``actual`` may be finite though the reference is not: in rows whose truth is finite,
    so that the reference alone overflowed; and the zeros of masked probabilities, of which an
    engine writes no more than what is visible."""
    finite = np.isfinite(actual.astype(np.float64)) & ~np.isfinite(expected.astype(np.float64))
    excused = np.zeros(expected.shape, bool)
    if sound is not None:
        excused |= finite & sound.reshape(*expected.shape[:-1], 1)
    if op == "causal_softmax":
        token, key_token = expected.shape[-2:]
        masked = np.triu(np.ones((token, key_token), bool), key_token - token + 1)
        excused |= finite & masked & (actual == 0)
    return excused


def finite_rows(expected: Array, padding: Padding) -> Padding:
    """Return what counts of a reference: neither padding nor a row that is not finite."""
    width = expected.shape[-1] if expected.ndim else 1
    values = expected.reshape(-1, width)
    finite = np.ones(len(values), bool)
    step = max(_BLOCK // max(width, 1), 1)
    for start in range(0, len(values), step):
        part = np.isfinite(values[start : start + step].astype(np.float64))
        if padding.elements is not None and padding.rows is not None:
            part = part | _hidden(padding, start, start + step, width)
        finite[start : start + step] = part.all(axis=1)
    return padding if finite.all() else padding.only(finite)


def _hidden(padding: Padding, start: int, stop: int, width: int) -> NDArray[np.bool_]:
    """Elements of rows ``start`` to ``stop`` that do not count."""
    assert padding.rows is not None
    assert padding.elements is not None
    first = int(np.count_nonzero(padding.rows[:start]))
    rows = padding.rows[start:stop]
    hidden = np.zeros((len(rows), width), bool)
    hidden[rows] = ~padding.elements[first : first + int(np.count_nonzero(rows))]
    return hidden
