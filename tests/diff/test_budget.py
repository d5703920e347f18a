"""Tests of the verdict by rounding budget: the rule of docs/budgets.md, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, check_budget, row_limits
from goldenctl.diff.sums import RowErrors

Rows = NDArray[np.float64]
WIDTH = 64


def flat_budget(rows: int, noise: float) -> Budget:
    """The budget of rows whose elements all err by ``noise``."""
    l2, top = np.full(rows, noise * math.sqrt(WIDTH)), np.full(rows, noise)
    return Budget(l2, top, l2, top)


def row_errors(errors: Rows, expected: Rows) -> RowErrors:
    squared = (errors**2).sum(axis=1)
    return RowErrors(WIDTH, squared, np.abs(errors).max(axis=1), (expected**2).sum(axis=1))


def shares(errors: Rows, budget: Budget, *, from_truth: bool) -> list[float]:
    rows = row_errors(errors, np.ones_like(errors))
    return [check.share for check in check_budget(rows, budget, from_truth=from_truth)[0]]


@pytest.mark.parametrize("from_truth", [True, False])
def test_no_error_uses_nothing(from_truth: bool) -> None:
    assert shares(np.zeros((3, WIDTH)), flat_budget(3, 0.01), from_truth=from_truth) == [0, 0, 0]


@pytest.mark.parametrize("from_truth", [True, False])
def test_an_error_as_large_as_the_references_own_passes(from_truth: bool) -> None:
    noise = np.random.default_rng(1).choice([-0.01, 0.01], (5, WIDTH))
    assert max(shares(noise, flat_budget(5, 0.01), from_truth=from_truth)) <= 1.0


@pytest.mark.parametrize("from_truth", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_one_bad_row_fails_among_any_number(rows: int, from_truth: bool) -> None:
    errors = np.full((rows, WIDTH), 0.001)
    errors[rows // 2] = 0.1
    checks, worst = check_budget(
        row_errors(errors, np.ones_like(errors)), flat_budget(rows, 0.01), from_truth=from_truth
    )
    assert worst == rows // 2
    assert not all(check.share <= 1.0 for check in checks)


@pytest.mark.parametrize("from_truth", [True, False])
def test_one_bad_element_fails_by_the_largest_error(from_truth: bool) -> None:
    errors = np.zeros((4, 1 << 12))
    errors[1, 5] = 0.06
    squared = (errors**2).sum(axis=1)
    rows = RowErrors(1 << 12, squared, np.abs(errors).max(axis=1), np.full(4, 4096.0))
    l2, top = np.full(4, 0.01 * 64), np.full(4, 0.01)
    checks, worst = check_budget(rows, Budget(l2, top, l2, top), from_truth=from_truth)
    by_name = {check.metric: check.share for check in checks}
    assert worst == 1
    assert by_name["row_l2"] <= 1.0
    assert by_name["row_max"] > 1.0


def test_the_limits_are_those_of_the_documentation() -> None:
    """Twice (1 + c) B and four times B_max; from the recorded result, b more."""
    budget, norms = flat_budget(2, 0.01), np.full(2, 8.0)
    l2, top = row_limits(budget, norms, from_truth=True)
    b, c = 0.01 * 8, 1 / 8
    np.testing.assert_allclose(l2, 2 * (1 + c) * b)
    np.testing.assert_allclose(top, 4 * 0.01)
    wider_l2, wider_top = row_limits(budget, norms, from_truth=False)
    np.testing.assert_allclose(wider_l2, l2 + b)
    np.testing.assert_allclose(wider_top, top + 0.01)


def test_a_row_that_was_exact_by_luck_gets_the_floor_or_the_pooled_budget() -> None:
    norms = np.ones(4)
    lucky = flat_budget(4, 0.01)
    lucky.l2[0] = lucky.max[0] = lucky.floor_l2[0] = lucky.floor_max[0] = 0.0
    l2, top = row_limits(lucky, norms, from_truth=True)
    assert 0 < l2[0] < l2[1]
    assert 0 < top[0] < top[1]


@pytest.mark.parametrize("from_truth", [True, False])
def test_an_empty_budget_demands_equality(from_truth: bool) -> None:
    nothing = flat_budget(2, 0.0)
    assert shares(np.zeros((2, WIDTH)), nothing, from_truth=from_truth) == [0, 0]
    assert shares(np.full((2, WIDTH), 1e-30), nothing, from_truth=from_truth) == [
        math.inf,
        math.inf,
    ]


@pytest.mark.parametrize("where", ["error", "budget"])
def test_nan_never_passes(where: str) -> None:
    errors, budget = np.full((2, WIDTH), 0.01), flat_budget(2, 0.01)
    if where == "error":
        errors[1, 0] = math.nan
    else:
        budget.l2[:], budget.max[:] = math.nan, math.nan
    assert not all(s <= 1.0 for s in shares(errors, budget, from_truth=True))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.2), st.floats(1, 50))
def test_a_larger_error_uses_a_larger_share(seed: int, size: float, growth: float) -> None:
    noise = np.random.default_rng(seed).standard_normal((6, WIDTH))
    budget = flat_budget(6, 0.01)
    small = shares(size * noise, budget, from_truth=False)
    large = shares(size * growth * noise, budget, from_truth=False)
    assert all(s <= b * (1 + 1e-9) for s, b in zip(small, large, strict=True))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.001, 0.1))
def test_what_the_truth_accepts_the_recorded_result_does_not_reject(seed: int, size: float) -> None:
    """The triangle inequality: a - e is a - o and o - e."""
    rng = np.random.default_rng(seed)
    own = 0.01 * rng.standard_normal((6, WIDTH))  # e - o
    off = size * rng.standard_normal((6, WIDTH))  # a - o
    l2, top = np.linalg.norm(own, axis=1), np.abs(own).max(axis=1)
    budget = Budget(l2, top, l2, top)
    if max(shares(off, budget, from_truth=True)) <= 1.0:
        assert max(shares(off - own, budget, from_truth=False)) <= 1.0 + 1e-9


def test_the_stored_scopes_are_told_apart() -> None:
    stored = np.arange(3 * 2 * 5 * 4, dtype=np.float32).reshape(3, 2, 5, 4)
    budget = Budget.of(stored, 1)
    assert budget.l2.shape == (10,)
    assert (budget.l2[0], budget.max[0], budget.floor_l2[0], budget.floor_max[0]) == (
        40.0,
        41.0,
        42.0,
        43.0,
    )
