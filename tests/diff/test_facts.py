"""What is exact is checked element by element, whatever the norms say."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from goldenctl.diff.facts import Broken, broken_fact
from goldenctl.dtypes import DTYPES

NAMES = ("float32", "bfloat16", "float16")


def probabilities(past: int = 3, token: int = 8, name: str = "float32") -> Any:
    """Causal probabilities [2, 2, token, past + token] of random scores."""
    scores = 3 * np.random.default_rng(past).standard_normal((2, 2, token, past + token))
    later = np.arange(past + token) > past + np.arange(token)[:, None]
    powers = np.where(later, 0.0, np.exp(scores))
    return (powers / powers.sum(-1, keepdims=True)).astype(DTYPES[name].numpy)


def fact(actual: Any, **rest: Any) -> Broken | None:
    return broken_fact("causal_softmax", actual, actual, **rest)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("past", [0, 5, 600])
def test_correct_probabilities_break_nothing(name: str, past: int) -> None:
    right = probabilities(past, name=name)
    assert fact(right) is None
    cut = np.nextafter(right, np.zeros((), right.dtype))  # each value cut off instead of rounded
    assert fact(cut.astype(right.dtype)) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_sees_its_future_is_named(name: str) -> None:
    wrong = probabilities(name=name)
    wrong[1, 0, 4, 8] = 1e-3  # with 3 tokens of past, token 4 sees keys up to 7
    found = fact(wrong)
    assert found is not None
    assert found.check.metric == "masked"
    assert found.message.startswith("batch 1, head 0, token 4 sees key 8, which is masked")


def test_a_single_negative_probability_is_named() -> None:
    wrong = probabilities()
    wrong[0, 1, 6, 2] = -1e-6
    found = fact(wrong)
    assert found is not None
    assert (found.check.metric, found.check.limit) == ("probability", 0.0)
    assert "head 1, token 6 gives key 2 the probability -1e-06" in found.message


def test_a_row_that_does_not_sum_to_one_is_named() -> None:
    wrong = probabilities()
    wrong[0, 0, 5] *= np.float32(0.999)
    found = fact(wrong)
    assert found is not None
    assert found.check.metric == "sum"
    assert "token 5 has probabilities that sum to 0.999, not 1" in found.message


def test_keys_of_padding_are_masked_and_rows_of_padding_are_not_judged() -> None:
    wrong = probabilities(past=0)
    keys = np.ones((2, 8), bool)
    keys[1, 0] = False
    found = fact(wrong, keys=keys)
    assert found is not None
    assert "batch 1, head 0, token 0 sees key 0" in found.message
    rows = np.ones((2, 2, 8), bool)
    rows[1] = False
    assert fact(wrong, keys=keys, rows=rows.ravel()) is None


def test_rows_that_are_not_finite_are_left_to_the_masks() -> None:
    wrong = probabilities()
    wrong[0, 0, 2] = np.nan
    assert fact(wrong) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_lookup_is_bit_equal(name: str) -> None:
    table = np.random.default_rng(0).standard_normal((1, 4, 6)).astype(DTYPES[name].numpy)
    assert broken_fact("embedding", table.copy(), table) is None
    wrong = table.copy()
    wrong[0, 2, 1] = np.nextafter(wrong[0, 2, 1], np.ones((), table.dtype))
    found = broken_fact("embedding", wrong, table)
    assert found is not None
    assert "batch 0, token 2 is not the table's row (1 elements)" in found.message


def test_a_lookup_in_another_type_is_the_rounded_value() -> None:
    table = np.random.default_rng(0).standard_normal((1, 4, 6)).astype(np.float32)
    rounded = table.astype(ml_dtypes.bfloat16)
    assert broken_fact("embedding", rounded, table) is None
    assert broken_fact("embedding", table, rounded) is None  # finer than what was recorded
    assert broken_fact("embedding", rounded * ml_dtypes.bfloat16(2), table) is not None
