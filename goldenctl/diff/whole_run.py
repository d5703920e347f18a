"""All tensors of a run judged together: what one of them may err by luck, all of them may not.

Behind other ops a tensor's budget is made for the rows and tensors that rounding treats worst, so
weights in 8 bits stay within it. Many tensors together have far less spread. Two correct results
err alike, so their distance should be sqrt(2) times the reference's own from the truth. Along a
chain the errors of later tensors are one error that grows, so the first sublayers alone are judged
too, for any number of them: there they are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from goldenctl.diff.budget import Budget, expected_error
from goldenctl.diff.pooled import USUAL, left_of_bias
from goldenctl.diff.results import with_tensors
from goldenctl.diff.sums import RowErrors
from goldenctl.places import owner, short_name
from goldenctl.records.policy import Check
from goldenctl.records.report import PASSED, SublayerResult, TensorResult
from goldenctl.records.words import group_of

METRIC = "whole_run"
# In float32 another order of a sum may err several times as far, in float16 an engine that
# truncates in each of many layers, as InfiniCore 0.1.0 does (docs/budgets.md).
_DTYPE = "bfloat16"
_OF_FEW = 0.25  # one token alone may be that much further off


@dataclass(frozen=True)
class Spread:
    """A tensor's part: sums over its rows of squared errors, and of those of two correct results,
    both over what the row's budget expects."""

    error: float
    correct: float


def spread_of(rows: RowErrors, budget: Budget, *, dtype: str) -> Spread | None:
    """Return what a tensor adds to the whole; None where nothing errs, or nothing may.

    ``rows`` are errors from the recorded result.
    """
    expected = expected_error(budget, np.sqrt(rows.expected_squared))
    counted = expected > 0.0
    squared = left_of_bias(rows)
    if dtype != _DTYPE or not np.any(squared[counted]):
        return None
    unit = expected[counted] ** 2
    error, correct = squared[counted] / unit, 2.0 * budget.l2[counted] ** 2 / unit
    return Spread(float(error.sum()), float(correct.sum()))


def hold_together(
    sublayers: Sequence[SublayerResult], spreads: Mapping[str, Spread]
) -> list[SublayerResult]:
    """Fail the tensors that err more than two correct results do, where the first sublayers
    together do so, too. What failed by itself tells nothing of the rest."""
    passed = [t for s in sublayers for t in s.tensors if t.state == PASSED and t.name in spreads]
    if not passed:
        return list(sublayers)
    left = {tensor.name: spreads[tensor.name] for tensor in passed}
    ratio, count = _furthest(left)
    limit = USUAL * (1.0 + _OF_FEW / _tokens(passed))
    if ratio <= limit:
        return list(sublayers)
    check = Check(METRIC, ratio, limit, ratio / limit)
    first = "sublayer errs" if count == 1 else f"{count} sublayers err"
    said = (
        f"taken together, the run's first {first} {ratio:.2f} times as far as two correct "
        f"results are apart (limit {limit:.2f}), as with 8-bit weights; blame says more"
    )
    far = {name for name, s in left.items() if s.error > limit**2 * s.correct}
    return [
        with_tensors(s, [_failed(t, check, said) if t.name in far else t for t in s.tensors])
        for s in sublayers
    ]


def _furthest(spreads: Mapping[str, Spread]) -> tuple[float, int]:
    """Return how far the first sublayers err, in distances of two correct results, and how many
    they are: as many as err most."""
    by_place: dict[str, list[Spread]] = {}
    for name, spread in spreads.items():
        by_place.setdefault(short_name(owner(name)), []).append(spread)
    errors = np.cumsum([sum(s.error for s in place) for place in by_place.values()])
    correct = np.cumsum([sum(s.correct for s in place) for place in by_place.values()])
    ratios = np.sqrt(np.divide(errors, correct, out=np.zeros_like(errors), where=correct > 0.0))
    return float(ratios.max()), int(ratios.argmax()) + 1


def _failed(tensor: TensorResult, check: Check, said: str) -> TensorResult:
    share, checks = max(tensor.share, check.share), (*tensor.checks, check)
    return replace(tensor, state="failed", share=share, checks=checks, message=said)


def _tokens(tensors: Sequence[TensorResult]) -> int:
    """How many tokens all steps have."""
    most: dict[str, int] = {}
    for tensor in tensors:
        step = group_of(tensor.name)
        most[step] = max(most.get(step, 1), int(np.prod(tensor.shape[:2])))
    return sum(most.values())
