"""Tests that what is said of an error is true on its face: made-up errors of many kinds, and for
each kind of statement a check of its own on the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.diff.signature import describe_error

DIMS = ("batch", "token", "hidden")
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
TYPES: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
Array = NDArray[Any]
Make = Callable[[Array, np.random.Generator], Array]


# --- made-up errors ---------------------------------------------------------------------------


def _noise(e: Array, rng: np.random.Generator) -> Array:
    return e * (1 + rng.standard_normal(e.shape) * 10.0 ** rng.uniform(-6, 1))


def _dominated(e: Array, rng: np.random.Generator) -> Array:
    """One element is most of the tensor, and it alone errs."""
    e.flat[rng.integers(e.size)] = 1e4
    return np.where(np.abs(e) == 1e4, e * 1.0001, e)


def _near_one(e: Array, rng: np.random.Generator) -> Array:
    return e * (1.0001 + rng.standard_normal(e.shape) * 1e-3)


def _norm_epsilon(e: Array, rng: np.random.Generator) -> Array:
    """Small rows, normed with another epsilon."""
    mean_square = (e**2).mean(-1, keepdims=True) * 10.0 ** rng.uniform(-6, -3, (*e.shape[:2], 1))
    return e * np.sqrt((mean_square + 1e-6) / (mean_square + 1e-12)) ** rng.choice([-1e-3, 1.0])


def _dropped_tail(e: Array, rng: np.random.Generator) -> Array:
    x, w = rng.standard_normal((*e.shape[:2], 64)), rng.standard_normal((64, e.shape[-1]))
    cut = int(rng.integers(1, 9))
    e[:] = x @ w
    return x[..., :-cut] @ w[:-cut]


def _relu(e: Array, _rng: np.random.Generator) -> Array:
    return np.maximum(e, 0.0)


def _relu_of_gate(e: Array, rng: np.random.Generator) -> Array:
    gate, up = 3 * rng.standard_normal((2, *e.shape))
    e[:] = gate / (1 + np.exp(-gate)) * up
    return np.maximum(gate, 0.0) * up


def _zeroed_tail(e: Array, rng: np.random.Generator) -> Array:
    a = e.copy()
    a.reshape(-1)[-int(rng.integers(4, e.size)) :] = 0.0
    return a


def _zeroed_channels(e: Array, rng: np.random.Generator) -> Array:
    a = e.copy()
    a[..., rng.choice(e.shape[-1], 3, replace=False)] = 0.0
    return a


def _scattered_zeros(e: Array, rng: np.random.Generator) -> Array:
    return np.where(rng.random(e.shape) < 0.3, 0.0, e)


def _massive_channel(e: Array, rng: np.random.Generator) -> Array:
    """All is scaled, but one channel is most of it."""
    e[..., 5] *= 1e3
    return e * (1 + 10.0 ** rng.uniform(-5, -1))


def _clamped(e: Array, rng: np.random.Generator) -> Array:
    return np.clip(e, *np.sort(rng.standard_normal(2)))


def _cut_digits(e: Array, rng: np.random.Generator) -> Array:
    kept = 2.0 ** (np.floor(np.log2(np.abs(e) + 1e-30)) - int(rng.integers(4, 14)))
    return np.trunc(e / kept) * kept


def _int8(e: Array, _rng: np.random.Generator) -> Array:
    step = np.abs(e).max(-1, keepdims=True) / 127
    return np.round(e / step) * step


def _grown(e: Array, rng: np.random.Generator) -> Array:
    ramp = np.linspace(0.001, 0.1, e.shape[1]).reshape(1, -1, 1)
    return e * (1 + ramp * np.sign(rng.standard_normal(e.shape)))


def _signs(e: Array, rng: np.random.Generator) -> Array:
    return e * rng.choice([-1.0, 1.0], e.shape)


def _order(e: Array, rng: np.random.Generator) -> Array:
    axis = int(rng.integers(1, 3))
    return np.take(e, rng.integers(0, e.shape[axis], e.shape[axis]), axis)


def _scrambled(e: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(e.reshape(-1)).reshape(e.shape)


def _rotated(e: Array, rng: np.random.Generator) -> Array:
    turn, _ = np.linalg.qr(rng.standard_normal((e.shape[-1],) * 2))
    return e @ turn


def _few_tokens(e: Array, rng: np.random.Generator) -> Array:
    a = e + rng.standard_normal(e.shape) * 10.0 ** rng.uniform(-9, -3)
    a[:, rng.integers(e.shape[1])] += rng.standard_normal(e.shape[-1])
    return a


def _not_finite(e: Array, rng: np.random.Generator) -> Array:
    e.flat[rng.integers(0, e.size, 9)] = rng.choice([np.nan, np.inf, -np.inf], 9)
    a = e * 1.5
    if rng.random() < 0.5:
        a.flat[rng.integers(0, e.size, 5)] = np.nan
    return a


def _scaled(e: Array, rng: np.random.Generator) -> Array:
    return e * (1 + 10.0 ** rng.uniform(-7, 1))


def _moved(e: Array, rng: np.random.Generator) -> Array:
    return e * rng.choice([1.0, 1.1]) + 10.0 ** rng.uniform(-7, 1)


KINDS: tuple[Make, ...] = (
    _noise, _dominated, _near_one, _norm_epsilon, _dropped_tail, _relu, _relu_of_gate,
    _zeroed_tail, _zeroed_channels, _scattered_zeros, _massive_channel, _clamped, _cut_digits,
    _int8, _grown, _signs, _order, _scrambled, _rotated, _few_tokens, _not_finite, _scaled, _moved,
)  # fmt: skip


# --- what each statement claims ---------------------------------------------------------------


def _explained(a: Array, e: Array, fit: Array) -> None:
    """Nine tenths of the squared error, and at least half of the elements that moved."""
    assert np.sum((a - fit) ** 2) <= 0.1 * np.sum((a - e) ** 2)
    moved = (a != e) | (fit != e)
    assert np.mean((np.abs(a - fit) < np.abs(a - e))[moved]) >= 0.5


def _is_scale(a: Array, e: Array, _dtype: str, factor: str) -> None:
    assert float(factor) != 1.0
    _explained(a, e, float(factor) * e)


def _is_offset(a: Array, e: Array, _dtype: str, offset: str) -> None:
    assert float(offset) != 0.0
    _explained(a, e, e + float(offset))


def _is_both(a: Array, e: Array, _dtype: str, factor: str, offset: str) -> None:
    _explained(a, e, float(factor) * e + float(offset))


def _is_row_scale(a: Array, e: Array, _dtype: str, low: str, high: str) -> None:
    fits = []
    for x, y in zip(a.reshape(-1, a.shape[-1]), e.reshape(-1, a.shape[-1]), strict=True):
        factor = np.linalg.lstsq(y[:, None], x, rcond=None)[0][0]
        assert float(low) * (1 - 1e-4) - 1e-9 <= factor <= float(high) * (1 + 1e-4) + 1e-9
        fits.append(factor * y)
    _explained(a, e, np.reshape(fits, e.shape))


def _is_truncation(a: Array, e: Array, _dtype: str) -> None:
    wrong = a != e
    assert np.mean((np.abs(a) < np.abs(e))[wrong]) > 0.9
    relative = (np.abs(a - e) / np.abs(np.where(e == 0, 1, e)))[wrong]
    assert np.quantile(relative, 0.9) <= EPS["bfloat16"]
    assert np.std(relative) > 0.05 * np.max(relative)  # one factor for all is no truncation


def _is_signs(a: Array, e: Array, _dtype: str, count: str, size: str) -> None:
    assert int(count) == np.sum((a < 0) & (e > 0) | (a > 0) & (e < 0)) > 0
    assert int(size) == a.size
    assert np.sum((np.abs(a) - np.abs(e)) ** 2) <= 0.1 * np.sum((a - e) ** 2)


def _slices(a: Array, e: Array, axis: str) -> tuple[Array, Array]:
    number = DIMS.index(axis)
    return tuple(np.moveaxis(x, number, 0).reshape(x.shape[number], -1) for x in (a, e))  # type: ignore[return-value]


def _is_order(a: Array, e: Array, _dtype: str, axis: str) -> None:
    """Each slice of actual is one of expected, and not all stand where they should."""
    ours, theirs = _slices(a, e, axis)
    for row in ours:
        nearest = min(float(np.sum((row - other) ** 2)) for other in theirs)
        assert nearest <= 0.1 * np.sum((a - e) ** 2)
    assert not np.array_equal(ours, theirs)


def _is_repeat(a: Array, e: Array, dtype: str, _which: str, axis: str) -> None:
    _is_order(a, e, dtype, axis)


def _is_shift(a: Array, e: Array, dtype: str, _by: str, axis: str) -> None:
    _is_order(a, e, dtype, axis)


def _is_saturated(a: Array, e: Array, _dtype: str, limit: str) -> None:
    bound = float(limit)
    assert np.isclose(np.abs(a).max(), bound, rtol=1e-4)
    assert np.sum((np.abs(e) > bound) & np.isclose(np.abs(a), bound, rtol=1e-4)) > 1
    small = np.abs(e) < bound
    assert np.sum((a - e)[small] ** 2) <= 0.1 * np.sum((a - e) ** 2)


def _has_value(a: Array, e: Array, share: str, value: str) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = np.isclose(a, float(value), rtol=1e-4, atol=1e-12) & (a != e)
    assert abs(wrong.mean() - float(share) / 100) < 0.0051
    assert np.sum((a - e)[~wrong] ** 2) <= 0.1 * np.sum((a - e) ** 2)
    return wrong


def _is_unwritten(a: Array, e: Array, _dtype: str, share: str, value: str) -> None:
    """Together, as memory lies, or whole channels or tokens; and not those of one side of it."""
    wrong = _has_value(a, e, share, value)
    assert np.any(e[wrong] > float(value)) | np.any(a < float(value))
    assert np.any(e[wrong] < float(value)) | np.any(a > float(value))
    where = np.flatnonzero(wrong)
    runs = 1 + np.sum(np.diff(where) > 1)
    whole = [wrong.any(axis=tuple(i for i in range(3) if i != n)).sum() for n in range(3)]
    assert runs <= 3 or wrong.sum() >= 0.95 * np.prod(whole)


def _is_one_sided(a: Array, e: Array, _dtype: str, share: str, value: str, side: str) -> None:
    wrong = _has_value(a, e, share, value)
    assert np.all(e[wrong] < float(value)) if side == "below" else np.all(e[wrong] > float(value))


def _is_value(a: Array, e: Array, _dtype: str, share: str, value: str) -> None:
    _has_value(a, e, share, value)


def _is_growth(a: Array, e: Array, _dtype: str) -> None:
    relative = np.linalg.norm(a - e, axis=(0, 2)) / np.linalg.norm(e, axis=(0, 2))
    assert relative[-3:].mean() > 1.5 * relative[:3].mean()


def _is_only(a: Array, e: Array, dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    rest = np.delete(np.arange(e.shape[DIMS.index(axis)]), [int(i) for i in which.split(", ")])
    x, y = (side.take(rest, DIMS.index(axis)) for side in (a, e))
    epsilons = 64 if dtype == "float32" else 4
    assert np.linalg.norm(x - y) <= 1.01 * epsilons * EPS[dtype] * np.linalg.norm(y)


def _is_mostly(a: Array, e: Array, _dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    number = DIMS.index(axis)
    hit = (a - e).take([int(i) for i in which.split(", ")], number)
    assert np.sum(hit**2) >= 0.98 * np.sum((a - e) ** 2)


def _is_noise(a: Array, e: Array, dtype: str, other: str, relative: str) -> None:
    """As large as what rounding to the type does to this very tensor, and no scale."""
    assert EPS[other] > EPS[dtype]
    measured = np.linalg.norm(a - e) / np.linalg.norm(e)
    assert np.isclose(measured, float(relative), rtol=0.05)
    rounded = e.astype(TYPES[other]).astype(np.float64)
    assert 0.35 <= measured / (np.linalg.norm(rounded - e) / np.linalg.norm(e)) <= 2.9
    factor = np.sum(a * e) / np.sum(e * e)
    assert np.linalg.norm(a - factor * e) > 0.7 * np.linalg.norm(a - e)


def _is_reordered(a: Array, e: Array, dtype: str) -> None:
    np.testing.assert_allclose(
        np.sort(a, axis=None), np.sort(e, axis=None), atol=EPS[dtype] * np.linalg.norm(e)
    )


def _is_rotation(a: Array, e: Array, _dtype: str) -> None:
    np.testing.assert_allclose(
        np.linalg.norm(a, axis=-1), np.linalg.norm(e, axis=-1), atol=0.03 * np.linalg.norm(a - e)
    )


def _is_large(a: Array, e: Array, _dtype: str, relative: str) -> None:
    assert np.isclose(np.linalg.norm(a - e) / np.linalg.norm(e), float(relative), rtol=0.1)


def _is_one_side(a: Array, e: Array, _dtype: str, count: str) -> None:
    assert int(count) == np.sum(np.isfinite(a) ^ np.isfinite(e)) > 0


def _is_other(a: Array, e: Array, _dtype: str, count: str) -> None:
    both = ~np.isfinite(a) & ~np.isfinite(e)
    assert int(count) == np.sum(both & (a != e) & ~(np.isnan(a) & np.isnan(e))) > 0


def _is_only_at(a: Array, e: Array, _dtype: str, axis: str, which: str) -> None:
    if "..." in which:
        return
    number = DIMS.index(axis)
    rest = np.delete(np.arange(e.shape[number]), [int(i) for i in which.split(", ")])
    x, y = (side.take(rest, number) for side in (a, e))
    assert np.array_equal(np.isfinite(x), np.isfinite(y))


NUMBER = r"(-?[\d.]+(?:e[-+]\d+)?)"
CLAIMS: dict[str, Callable[..., None]] = {
    rf"constant scale {NUMBER}": _is_scale,
    rf"constant offset {NUMBER}": _is_offset,
    rf"constant scale {NUMBER} and offset {NUMBER}": _is_both,
    rf"each row scaled by a factor of its own, {NUMBER} to {NUMBER}": _is_row_scale,
    r"truncation bias \(errors point to zero\)": _is_truncation,
    r"sign flips \((\d+) of (\d+)\)": _is_signs,
    r"(\w+) axis permuted": _is_order,
    r"\w+ ([\d, .()]+) repeats another (\w+)": _is_repeat,
    r"shifted by (-?\d+) along (\w+)": _is_shift,
    rf"saturated at {NUMBER}": _is_saturated,
    rf"(\d+)% of the elements are {NUMBER}: unwritten or zeroed memory": _is_unwritten,
    rf"(\d+)% of the elements are {NUMBER}: all that should be (below|above) it": _is_one_sided,
    rf"(\d+)% of the elements are {NUMBER}(?:, and should not be)?": _is_value,
    r"grows along the tokens": _is_growth,
    r"only (batch|token|hidden) ([\d, .()]+?)(?:, every \d+th)?": _is_only,
    r"mostly (batch|token|hidden) ([\d, .()]+?)(?:, every \d+th)?": _is_mostly,
    rf"noise of the size of (\w+) rounding \(relative {NUMBER}\)": _is_noise,
    r"the same values in another order": _is_reordered,
    r"each row keeps its length but not its direction: a rotation": _is_rotation,
    rf"a large error \(relative {NUMBER}\)": _is_large,
    r"(\d+) of \d+ elements are NaN or Inf on one side": _is_one_side,
    r"(\d+) of \d+ elements are another of NaN, Inf and -Inf on each side": _is_other,
    r"only at (\w+) ([\d, .()]+)": _is_only_at,
}  # fmt: skip


def _claims(said: list[str]) -> Iterator[tuple[Callable[..., None], tuple[str, ...]]]:
    for statement in said:
        found = [(c, m.groups()) for p, c in CLAIMS.items() if (m := re.fullmatch(p, statement))]
        assert found, f"no check of: {statement}"
        yield found[0]


@pytest.mark.parametrize("dtype", list(EPS))
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.strip("_"))
@given(seed=st.integers(0, 10**6))
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
        "1 of 288 elements are another of NaN, Inf and -Inf on each side",
        "only at token 3, 5",
        "only at hidden 0, 1",
    ]
