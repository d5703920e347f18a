"""Errors that go one way are told from those of correct rounding."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldenctl.diff import _kernel
from goldenctl.diff._numpy import score_range
from goldenctl.diff.bias import Bias, measure_bias
from goldenctl.diff.metrics import score
from goldenctl.diff.sums import ROW_SUMS, Array, Job, RowErrors
from goldenctl.dtypes import DTYPES

NAMES = ("float32", "bfloat16", "float16")
SHAPE = (40, 256)  # 10,240 elements


def of(actual: Array, expected: Array) -> Bias | None:
    rows = RowErrors.of(expected)
    score(actual, expected, atol=0.0, rtol=0.0, rows=rows)
    return measure_bias(rows, DTYPES[expected.dtype.name].eps)


def truncated(exact: Array, dtype: Any) -> Array:
    """Round toward zero."""
    rounded = exact.astype(dtype)
    too_far = np.abs(rounded.astype(np.float64)) > np.abs(exact)
    toward = np.nextafter(rounded, np.zeros((), dtype))
    return np.where(too_far, toward, rounded).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_truncation_is_noted_and_no_failure(name: str) -> None:
    dtype = DTYPES[name].numpy
    for seed in range(20):
        exact = np.random.default_rng(seed).standard_normal(SHAPE)
        bias = of(truncated(exact, dtype), exact.astype(dtype))
        assert bias is not None
        assert bias.note.startswith("rounds toward zero: ")
        assert bias.units == pytest.approx(-0.5, abs=0.05)
        assert bias.check("linear") is None


@pytest.mark.parametrize("name", NAMES)
def test_two_units_on_all_values_fail(name: str) -> None:
    dtype = DTYPES[name].numpy
    expected = np.random.default_rng(3).standard_normal(SHAPE).astype(dtype)
    away = (np.sign(expected.astype(np.float32)) * np.float32(np.inf)).astype(dtype)
    bias = of(np.nextafter(np.nextafter(expected, away), away), expected)
    assert bias is not None
    check = bias.check("linear")
    assert check is not None
    assert check.share == pytest.approx(2.0, rel=0.05)
    assert bias.check("causal_softmax") is None  # a sum that a whole row shares


@pytest.mark.parametrize("name", NAMES)
def test_correct_rounding_is_never_noted(name: str) -> None:
    """Two results that are each off by noise of their own, and rounded to nearest."""
    dtype = DTYPES[name].numpy
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(8, 40)), int(rng.integers(1, 200)))
        exact = rng.standard_normal(shape)
        noise = DTYPES[name].eps * float(rng.choice([0.0, 0.3, 4.0]))
        a, b = ((exact + noise * rng.standard_normal(shape)).astype(dtype) for _ in range(2))
        bias = of(a, b)
        assert bias is None or bias.note == ""


def test_few_rows_say_nothing() -> None:
    exact = np.random.default_rng(0).standard_normal((7, 4096))
    assert of(truncated(exact, np.float32), exact.astype(np.float32)) is None


@pytest.mark.skipif(_kernel.LIBRARY is None, reason="the kernel was not compiled")
@given(st.integers(0, 1 << 20), st.sampled_from([*NAMES, "float64"]), st.integers(1, 3000))
def test_the_kernel_and_numpy_give_the_same_sums(seed: int, name: str, length: int) -> None:
    rng = np.random.default_rng(seed)
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(name, name)
    expected = rng.standard_normal((3, length)).astype(kind)
    expected[0, 0] = 0
    expected[1, 0] = np.nan
    actual = (expected.astype(np.float64) * (1 + 1e-3 * rng.standard_normal((3, 1)))).astype(kind)
    found = []
    for work in (_kernel.score_range, score_range):
        rows = RowErrors.of(expected)
        work(Job(actual.ravel(), expected.ravel(), 0.0, 0.0, rows), 0, expected.size)
        found.append(rows)
    for sums in ROW_SUMS:
        one, other = (getattr(rows, sums) for rows in found)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=sums)
