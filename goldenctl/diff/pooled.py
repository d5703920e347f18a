"""All rows of a tensor judged together: their pooled error against their pooled budget.

A row's limit is made for the unluckiest of thousands; no correct engine has every row near it.
The mean over R rows varies by about 1/sqrt(R) of what one row does, so its factor can be near 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.sums import RowErrors
from goldenctl.records.policy import Check

# What correct engines and alternatives used at most, over four families and three dtypes: 0.91,
# and 1.83 after other ops where InfiniCore 0.1.0's float16 truncates in each (docs/budgets.md).
USUAL = 1.25
BEHIND_FLOAT16 = 2.0
Rows = NDArray[np.float64]


def check_pooled(
    rows: RowErrors, typical: Rows, concentration: Rows, *, factor: float
) -> Check | None:
    """Return sqrt(mean over rows of error² / ``typical``²) held against its limit; None where
    nothing may err.

    ``typical`` is each row's expected L2 error. ``concentration``, c in 0..1, says how much of it
    one element carries: such rows vary like a single draw, so the limit is
    ``factor`` (1 + 1/sqrt(R²/Σc²)). What all elements err by together, in units, is left to
    the check of bias.
    """
    counted = typical > 0.0
    if not counted.any():
        return None
    squared = left_of_bias(rows)[counted]
    value = float(np.sqrt(np.mean(squared / typical[counted] ** 2)))
    draws = float(np.sum(concentration[counted] ** 2)) ** 0.5 / int(counted.sum())
    limit = factor * (1.0 + draws)
    return Check("pooled", value, limit, value / limit)


def left_of_bias(rows: RowErrors) -> Rows:
    """Return each row's squared error without what all elements err by together."""
    return np.maximum(rows.error_squared - _shared(rows), 0.0)


def _shared(rows: RowErrors) -> Rows:
    """The part of each row's squared error that is the tensor's mean error in units."""
    total = float(rows.units.sum())
    if not total:
        return np.zeros_like(rows.error_squared)
    return (float(rows.signed_error.sum()) / total) ** 2 * rows.units_squared
