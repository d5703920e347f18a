"""All rows together: what every row may be, all of them may not."""

from __future__ import annotations

import numpy as np
import pytest

from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.metrics import score
from goldenctl.diff.pooled import USUAL, check_pooled
from goldenctl.diff.sums import RowErrors

ROWS, WIDTH = 64, 128


def judged(noise: float, *, seed: int = 0) -> dict[str, float]:
    """Judge rows that err by ``noise`` times what their budget says; return each check's share."""
    rng = np.random.default_rng(seed)
    expected = rng.standard_normal((ROWS, WIDTH))
    actual = expected + noise * 1e-3 * rng.standard_normal((ROWS, WIDTH))
    rows = RowErrors.of(expected)
    score(actual, expected, atol=0.0, rtol=0.0, rows=rows)
    l2, top = np.full(ROWS, 1e-3 * np.sqrt(WIDTH)), np.full(ROWS, 3e-3)
    budget = Budget(np.zeros(ROWS), np.zeros(ROWS), l2, top, USUAL)
    return {check.metric: check.share for check in check_budget(rows, budget, from_truth=True)[0]}


def test_errors_as_large_as_expected_pass() -> None:
    for seed in range(50):
        assert max(judged(1.0, seed=seed).values()) <= 1.0


def test_what_each_row_may_err_by_luck_all_may_not() -> None:
    shares = judged(1.7)
    assert shares["row_l2"] <= 1.0
    assert shares["pooled"] > 1.0


@pytest.mark.parametrize(("concentration", "limit"), [(0.0, USUAL), (1.0, USUAL * 1.5)])
def test_rows_that_one_element_carries_are_given_more_room(
    concentration: float, limit: float
) -> None:
    rows = RowErrors(1, np.ones(4), np.ones(4), np.ones(4))
    check = check_pooled(rows, np.ones(4), np.full(4, concentration), factor=USUAL)
    assert check is not None
    assert check.limit == pytest.approx(limit)
    assert check.value == pytest.approx(1.0)


def test_what_all_elements_err_by_together_is_left_to_the_bias() -> None:
    expected = np.random.default_rng(1).uniform(1.0, 2.0, (ROWS, WIDTH))
    rows = RowErrors.of(expected)
    score(expected + 1e-3, expected, atol=0.0, rtol=0.0, rows=rows)
    check = check_pooled(rows, np.full(ROWS, 1e-3), np.zeros(ROWS), factor=USUAL)
    assert check is not None
    assert check.value < 1e-3


def test_where_nothing_may_err_there_is_nothing_to_pool() -> None:
    rows = RowErrors(1, np.zeros(2), np.zeros(2), np.ones(2))
    assert check_pooled(rows, np.zeros(2), np.zeros(2), factor=USUAL) is None
