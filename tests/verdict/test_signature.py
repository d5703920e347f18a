"""Tests the words for unknown errors: each planted pattern is described, noise is not."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.diff.signature import describe_error

DIMS = ("batch", "token", "head", "head_dim")
Values = NDArray[np.float32]
seeds = st.integers(0, 10_000)


def _values(seed: int, shape: tuple[int, ...] = (1, 12, 4, 16)) -> Values:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _said(actual: NDArray[np.generic], expected: Values, dtype: str = "float32") -> str:
    return "; ".join(describe_error(actual, expected, DIMS, dtype))


def _bf16(values: Values) -> Values:
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


@given(seeds, st.sampled_from([-1.0, 0.5, 0.98, 1.02, 1.07, 2.0]))
def test_scale(seed: int, factor: float) -> None:
    e = _values(seed)
    assert f"constant scale {factor:.5g}" in _said(e * np.float32(factor), e)


@given(seeds, st.sampled_from([0.9, 1.07, 1.5]))
def test_scale_in_bfloat16(seed: int, factor: float) -> None:
    e = _bf16(_values(seed))
    assert f"constant scale {factor:.2g}"[:-1] in _said(_bf16(e * factor), e, "bfloat16")


@given(seeds, st.sampled_from([-2.0, 0.125, 3.0]))
def test_offset(seed: int, offset: float) -> None:
    e = _values(seed)
    assert f"constant offset {offset:.5g}" in _said(e + np.float32(offset), e)


@given(seeds, st.integers(0, 3))
def test_permutation(seed: int, number: int) -> None:
    e = _values(seed)
    axis = 1 + number % 3
    order = np.roll(np.arange(e.shape[axis]), 1)
    order[[0, 1]] = order[[1, 0]]
    assert f"{DIMS[axis]} axis permuted" in _said(np.take(e, order, axis), e)


@given(seeds)
def test_token_shift(seed: int) -> None:
    long = _values(seed, (1, 13, 4, 16))
    said = _said(long[:, 1:], long[:, :-1])  # the last token has no match in the expected
    assert "permuted" not in said
    stale = np.array(long[:, :12])
    stale[:, -1] = stale[:, -2]
    assert "token 11 repeats another token" in _said(stale, long[:, :12])


@given(seeds)
def test_sign_flips(seed: int) -> None:
    e = _values(seed)
    signs = np.random.default_rng(seed + 1).choice(np.array([-1, 1], np.float32), e.shape)
    signs.flat[0], signs.flat[1] = -1, 1
    assert "sign flips" in _said(e * signs, e)


@given(seeds, st.integers(0, 3))
def test_one_head(seed: int, head: int) -> None:
    e = _values(seed)
    a = e.copy()
    a[:, :, head] += _values(seed + 1)[:, :, head]
    assert f"only head {head}" in _said(a, e)


@given(seeds)
def test_a_stride_of_channels(seed: int) -> None:
    e = _values(seed)
    a = e.copy()
    a[..., 1::4] += _values(seed + 1)[..., 1::4]
    assert "only head_dim 1, 5, 9, 13, every 4th" in _said(a, e)


@given(seeds)
def test_saturation(seed: int) -> None:
    e = _values(seed)
    assert "saturated at 0.5" in _said(np.clip(e, -0.5, 0.5), e)


@given(seeds)
def test_truncation(seed: int) -> None:
    e = _values(seed)
    cut = (e.view(np.int32) & ~0xFFFF).view(np.float32)
    assert "truncation bias" in _said(cut, e)


@given(seeds)
def test_growth(seed: int) -> None:
    e = _values(seed)
    ramp = np.linspace(0.001, 0.1, 12, dtype=np.float32).reshape(1, 12, 1, 1)
    a = e * (1 + ramp * np.sign(_values(seed + 1)))
    assert "grows along the tokens" in _said(a, e)


@given(seeds)
def test_unwritten(seed: int) -> None:
    e = _values(seed)
    a = e.copy()
    a[:, 8:] = 0.0
    assert "33% of the elements are 0: unwritten or zeroed memory" in _said(a, e)


@given(seeds)
def test_noise_of_another_type(seed: int) -> None:
    e = _values(seed)
    assert "noise of the size of bfloat16 rounding" in _said(_bf16(e), e)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@given(seed=seeds)
@settings(max_examples=50)
def test_rounding_noise_is_like_nothing_known(dtype: str, seed: int) -> None:
    eps = {"float32": 2**-23, "bfloat16": 2**-7}[dtype]
    e = _values(seed)
    noise = np.random.default_rng(seed + 1).uniform(-eps / 2, eps / 2, e.shape)
    a = (e.astype(np.float64) * (1 + noise)).astype(np.float64)
    assert describe_error(a, e, DIMS, dtype) == []


def test_equal_is_nothing() -> None:
    e = _values(0)
    assert describe_error(e, e, DIMS, "float32") == []


def test_not_finite() -> None:
    e = _values(0)
    a = e.copy()
    a[:, 3] = np.nan
    assert describe_error(a, e, DIMS, "float32") == [
        "64 of 768 elements are NaN or Inf on one side",
        "only at token 3",
    ]
