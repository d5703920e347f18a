"""Tests that what is said of an error is true on its face: made-up errors of many kinds, and for
each kind of statement a check of its own on the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goldenctl.diff.signature import describe_error
from tests.verdict.claims import CLAIMS, DIMS, EPS, TYPES, Array
from tests.verdict.made_errors import KINDS, Make


def _claims(said: list[str]) -> Iterator[tuple[Callable[..., None], tuple[str, ...]]]:
    for statement in said:
        found = [(c, m.groups()) for p, c in CLAIMS.items() if (m := re.fullmatch(p, statement))]
        assert found, f"no check of: {statement}"
        yield found[0]


@pytest.mark.parametrize("dtype", list(EPS))
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.strip("_"))
@given(seed=st.integers(0, 10**6))
@example(seed=390028)  # float32: rows that are equal beside rows that are not
@settings(max_examples=30, deadline=None)
def test_whatever_is_said_is_true(make: Make, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((1, 12, 24)) * 10.0 ** rng.uniform(-2, 2)
    a = make(e, rng)
    with np.errstate(over="ignore"):
        a, e = (side.astype(TYPES[dtype]) for side in (a, e))
    said = describe_error(a, e, DIMS, dtype)
    a, e = a.astype(np.float64), e.astype(np.float64)
    if not any("on one side" in s or "on each side" in s for s in said):
        a, e = (np.where(np.isfinite(e), side, 0.0) for side in (a, e))
    for claim, words in _claims(said):
        claim(a, e, dtype, *words)


# --- names that were wrong --------------------------------------------------------------------


def _said(a: Array, e: Array, dtype: str = "float32") -> str:
    return "; ".join(describe_error(a, e, DIMS, dtype))


def test_a_scale_is_never_one() -> None:
    e = np.random.default_rng(0).standard_normal((1, 12, 24)).astype(np.float32)
    e[0, 3, 5] = 1e4
    a = e.copy()
    a[0, 3, 5] += 0.1
    assert "scale" not in _said(a, e)
    assert "constant scale 1.0000041" in _said(e.astype(float) * 1.0000041, e)


def test_zeros_of_an_activation_are_not_unwritten() -> None:
    e = np.random.default_rng(0).standard_normal((1, 12, 24))
    assert "0: all that should be below it" in _said(np.maximum(e, 0), e)
    gate, up = 6 * np.random.default_rng(1).standard_normal((2, 1, 12, 24))
    silu = gate / (1 + np.exp(-gate)) * up
    assert "unwritten" not in _said(np.maximum(gate, 0) * up, silu)
    assert "%" not in _said(np.maximum(gate, 0) * up, silu)


def test_a_size_names_a_dtype_within_a_factor_of_two() -> None:
    rng = np.random.default_rng(0)
    e = rng.standard_normal((1, 64, 64))
    noise = rng.standard_normal(e.shape)
    noise *= np.linalg.norm(e) / np.linalg.norm(noise)
    assert "bfloat16" in _said(e + 1.7e-3 * noise, e)
    assert "bfloat16" in _said(e + 3.0e-3 * noise, e)
    for relative in (1.4e-2, 4e-3, 6e-4):
        assert "rounding" not in _said(e + relative * noise, e)
    assert "float16" in _said(e + 2e-4 * noise, e)
    assert "rounding" not in _said(e + 5e-5 * noise, e)


def test_another_epsilon_in_a_norm_is_not_float16() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 12, 24)) * 10.0 ** rng.uniform(-2.2, -1, (1, 12, 1))
    mean = (x**2).mean(-1, keepdims=True)
    said = _said(x / np.sqrt(mean + 1e-12), x / np.sqrt(mean + 1e-6))
    assert "each row scaled by a factor of its own, 1.0" in said
    assert "float16" not in said


def test_what_is_large_in_most_is_not_only_there() -> None:
    e = np.random.default_rng(0).standard_normal((1, 12, 24))
    e[..., 5] *= 1e3
    said = _said(e * (1 + np.random.default_rng(1).standard_normal(e.shape) * 0.01), e)
    assert "mostly hidden 5" in said
    assert "only" not in said


def test_equal_masks_are_passed_over() -> None:
    e = np.random.default_rng(0).standard_normal((1, 12, 24))
    e[0, 3] = np.nan
    e[0, 4, :3] = -np.inf
    assert describe_error(e, e, DIMS, "float32") == []
    assert _said(np.where(np.isfinite(e), e * 1.5, e), e) == "constant scale 1.5"


def test_only_positions_that_differ_are_counted() -> None:
    e = np.random.default_rng(0).standard_normal((1, 12, 24))
    e[0, 3] = np.nan
    a = e.copy()
    a[0, 5, :2] = np.inf
    a[0, 3, 0] = np.inf
    assert describe_error(a, e, DIMS, "float32") == [
        "2 of 288 elements are NaN or Inf on one side",
        "1 of 288 elements are NaN, Inf or -Inf on both sides, but not the same one",
        "only at token 3, 5",
        "only at hidden 0, 1",
    ]
