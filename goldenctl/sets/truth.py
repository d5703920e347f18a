"""What budgets tell of two recordings: whether one truth explains both, and which is nearer.

A budget keeps b = ||e - o||, how far the recorded row e is from the truth o, without o. If two
recordings have one truth, the triangle inequality bounds how far they are from each other:
||e' - e|| <= b' + b. A row that breaks it has another truth, so its meaning changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget
from goldenctl.diff.metrics import score
from goldenctl.diff.sums import RowErrors
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.schema import BUDGET_SCOPES, TensorInfo

# The truth itself is computed in a type of this many epsilons' error, and kept in float32.
_TRUTH_EPSILONS = 64.0
_STORED = 1e-6
_CHAIN = BUDGET_SCOPES.index("chain")


@dataclass(frozen=True)
class Yardsticks:
    """Relative L2 distances of the old and the new tensor from their one truth."""

    old: float
    new: float

    @property
    def share(self) -> float:
        """The new distance as a part of the old one; 1 when both are exact."""
        return self.new / self.old if self.old > 0.0 else 1.0


def one_truth(old: GoldenFile, new: GoldenFile, info: TensorInfo) -> Yardsticks | None:
    """Return both distances from the truth of the whole chain; None when a budget is not
    there, or no single truth explains both recordings."""
    folder, tap = info.place.group, info.tap
    stored = f"{folder}/budget/{tap}"
    if stored not in old.tensors or stored not in new.tensors:
        return None
    before, after = old.map(info.name), new.map(info.name)
    rows = RowErrors.of(before)
    metrics = score(after, before, atol=0.0, rtol=0.0, rows=rows)
    if metrics.mismatches or not metrics.norm_expected:
        return None
    apart, norms = np.sqrt(rows.error_squared), np.sqrt(rows.expected_squared)
    from_old, from_new = (Budget.of(f.map(stored), _CHAIN).l2 for f in (old, new))
    wide = DTYPES[oracle_dtype(info.dtype)].eps
    allowed = (from_old + from_new) * (1.0 + _STORED) + _TRUTH_EPSILONS * wide * norms
    if not np.all(apart <= allowed):
        return None
    return Yardsticks(*(_total(b) / metrics.norm_expected for b in (from_old, from_new)))


def budget_factor(old: NDArray[Any], new: NDArray[Any]) -> float:
    """Return the most that what a budget grants grew or shrank in any scope, as a factor of at
    least 1."""
    factors = [1.0]
    for scope in range(min(len(old), len(new))):  # a fused kernel's has one
        before, after = (Budget.of(stored, scope) for stored in (old, new))
        totals = [_total(np.maximum(b.l2, b.floor_l2)) for b in (before, after)]
        if max(totals) > 0.0:
            factors.append(max(totals) / min(totals) if min(totals) > 0.0 else np.inf)
    return float(max(factors))


def _total(rows: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.sum(rows**2)))
