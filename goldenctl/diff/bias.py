"""Errors that go one way: what rounding to nearest cannot make.

Each row's signed error (away from zero counts as positive), in units in the last place, is one
draw. Correct results err as often one way as the other, so the mean of many rows is near zero;
truncating results errs by half a unit toward zero, whatever the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from goldenctl.diff.sums import RowErrors
from goldenctl.ops.table import OPS
from goldenctl.records.policy import Check
from goldenctl.records.words import amount

LEAST_ROWS = 8
LEAST_UNITS = 0.28  # correct alternatives show at most 0.24, truncated results at least 0.31
SIGNIFICANT = 6.0  # standard deviations: 2e-9 of draws by chance
_TRUNCATED = (-0.75, -0.25)


@dataclass(frozen=True)
class Bias:
    """A tensor's mean signed error in units in the last place, its standard error over rows, and
    how many standard deviations from 0 that is (as of a Gaussian)."""

    units: float
    error: float
    z: float

    @property
    def is_noted(self) -> bool:
        return self.z >= SIGNIFICANT and abs(self.units) >= LEAST_UNITS

    @property
    def note(self) -> str:
        """One sentence; empty where there is nothing to say."""
        if not self.is_noted:
            return ""
        z = f"{min(self.z, 99.0):.0f} standard deviations"
        if _TRUNCATED[0] <= self.units <= _TRUNCATED[1]:
            return f"rounds toward zero: {self.units:+.2f} units on average, {z}"
        sign = "+" if self.units > 0 else "-"
        return f"biased by {sign}{amount(abs(self.units))} units on average, {z}"

    def check(self, op: str) -> Check | None:
        """Return the failure of a bias of more than one unit; None where it is none."""
        # An op whose rows share the error of one sum may be further off, and not by bias.
        if OPS[op].row_errors or not self.is_noted or abs(self.units) - 3.0 * self.error <= 1.0:
            return None
        return Check("bias", self.units, 1.0, abs(self.units))


def measure_bias(rows: RowErrors, eps: float) -> Bias | None:
    """Return the bias of a tensor whose type has this epsilon; None for too few rows.

    The mean is Σ signed error / Σ unit, its standard error that of a ratio of sums over rows
    (Cochran, Sampling Techniques, 1977, ch. 6).
    """
    counted = rows.units > 0.0
    count = int(counted.sum())
    if count < LEAST_ROWS:
        return None
    signed, units = rows.signed_error[counted], rows.units[counted] * eps
    mean = float(signed.sum() / units.sum())
    left = signed - mean * units
    error = float(np.sqrt(np.sum(left**2) * count / (count - 1)) / units.sum())
    return Bias(mean, error, _gaussian(abs(mean) / error if error else np.inf, count - 1))


def _gaussian(t: float, freedom: int) -> float:
    """Return the z of Student's t with ``freedom`` degrees (Wallace, Ann. Math. Stat. 1959)."""
    if not np.isfinite(t):
        return float("inf")
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return float(scale * np.sqrt(freedom * np.log1p(t * t / freedom)))
