"""The verdict by rounding budget: each row's error against what correct rounding does.

The rule (docs/budgets.md): with b the recorded result's own distance from the truth, f the
rounding floor and B = max(b, f, pooled), a correct result a obeys ||a - o|| <= 2 (1 + c) B
and max |a - o| <= 4 B_max, where c in 0..1 says how much of the row's error one element
carries. Only e is at hand, so by the triangle inequality the test is ||a - e|| <= b +
2 (1 + c) B; where the truth o was kept, it is the rule itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.pooled import BEHIND_FLOAT16, USUAL, check_pooled
from goldenctl.diff.sums import RowErrors
from goldenctl.golden.schema import BUDGET_SCOPES
from goldenctl.records.policy import Check

L2_FACTOR = 2.0
MAX_FACTOR = 4.0
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """One scope of a tensor's recorded budget, one entry per row."""

    l2: Rows
    max: Rows
    floor_l2: Rows
    floor_max: Rows
    pooled_factor: float = USUAL

    @staticmethod
    def of(
        stored: NDArray[Any],
        scope: int,
        counted: NDArray[np.bool_] | None = None,
        *,
        dtype: str = "",
    ) -> Budget:
        """Take one scope of the stored ``[scope, ..., statistic]``, of the rows that count.

        ``dtype`` is the type of what is judged.
        """
        rows = np.asarray(stored[scope], np.float64).reshape(-1, stored.shape[-1])
        kept = rows if counted is None else rows[counted]
        behind = dtype == "float16" and BUDGET_SCOPES[scope] != "op"
        l2, largest, floor_l2, floor_largest = kept.T
        return Budget(l2, largest, floor_l2, floor_largest, BEHIND_FLOAT16 if behind else USUAL)

    def where_finite(self) -> Budget:
        """Return the budget with zero in rows that have none, since the reference overflowed."""
        kept = (self.l2, self.max, self.floor_l2, self.floor_max)
        l2, largest, floor_l2, floor_max = (np.where(np.isfinite(r), r, 0.0) for r in kept)
        return Budget(l2, largest, floor_l2, floor_max, self.pooled_factor)


def check_budget(rows: RowErrors, budget: Budget, *, from_truth: bool) -> tuple[list[Check], int]:
    """Judge every row, and all together; return the worst row's checks and that row's number.

    ``rows`` are errors from the truth when ``from_truth``, else from the recorded result.
    """
    l2 = np.sqrt(rows.error_squared)
    norms = np.sqrt(rows.expected_squared)
    l2_limit, max_limit = row_limits(budget, norms, from_truth=from_truth)
    l2_share, max_share = _shares(l2, l2_limit), _shares(rows.max_error, max_limit)
    worst = int(np.argmax(np.maximum(l2_share, max_share)))
    pooled = _check_pooled(rows, budget, norms, from_truth=from_truth)
    checks = [
        Check("row_l2", float(l2.max()), float(l2_limit[l2_share.argmax()]), float(l2_share.max())),
        Check(
            "row_max",
            float(rows.max_error[max_share.argmax()]),
            float(max_limit[max_share.argmax()]),
            float(max_share.max()),
        ),
        *([] if pooled is None else [pooled]),
    ]
    return checks, worst


def _check_pooled(
    rows: RowErrors, budget: Budget, norms: Rows, *, from_truth: bool
) -> Check | None:
    l2, largest = _typical(budget, norms)
    typical = l2 if from_truth else np.hypot(budget.l2, l2)
    concentration = _concentration(largest, l2)
    return check_pooled(rows, typical, concentration, factor=budget.pooled_factor)


def row_shares(rows: RowErrors, budget: Budget, *, from_truth: bool) -> Rows:
    """Return the part of its tolerance that each row uses: the larger of the two checks."""
    norms = np.sqrt(rows.expected_squared)
    l2_limit, max_limit = row_limits(budget, norms, from_truth=from_truth)
    l2_share = _shares(np.sqrt(rows.error_squared), l2_limit)
    return np.maximum(l2_share, _shares(rows.max_error, max_limit))


def expected_error(budget: Budget, norms: Rows) -> Rows:
    """Return how far two correct results are apart in each row, as a rule: sqrt(b² + B²)."""
    return np.hypot(budget.l2, _typical(budget, norms)[0])


def row_limits(budget: Budget, norms: Rows, *, from_truth: bool) -> tuple[Rows, Rows]:
    """Return each row's limits of L2 and of the largest error; ``norms`` are of the expected
    rows."""
    typical_l2, typical_max = _typical(budget, norms)
    l2_limit = L2_FACTOR * (1.0 + _concentration(typical_max, typical_l2)) * typical_l2
    max_limit = MAX_FACTOR * typical_max
    if from_truth:
        return l2_limit, max_limit
    return l2_limit + budget.l2, max_limit + budget.max


def _typical(budget: Budget, norms: Rows) -> tuple[Rows, Rows]:
    """Return B and B_max of each row."""
    l2 = _widened(np.maximum(budget.l2, budget.floor_l2), norms)
    return l2, _widened(np.maximum(budget.max, budget.floor_max), norms)


def _concentration(largest: Rows, l2: Rows) -> Rows:
    """0 where many elements share a row's error, 1 where one carries it: the norm of many
    errors hardly varies, that of one has the tails of a Gaussian."""
    return np.clip(np.divide(largest, l2, out=np.zeros_like(l2), where=l2 > 0), 0.0, 1.0)


def _widened(budget: Rows, norms: Rows) -> Rows:
    """At least the tensor's own relative budget: one row may be exact by luck."""
    total = float(np.sum(norms**2))
    pooled = float(np.sqrt(np.sum(budget**2) / total)) if total > 0 else 0.0
    return np.maximum(budget, pooled * norms)


def _shares(error: Rows, limit: Rows) -> Rows:
    """error / limit per row; 0 / 0 is 0. NaN becomes Inf, so that it cannot hide."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0.0, 0.0, error / limit)
    return np.where(np.isnan(share), np.inf, share)
