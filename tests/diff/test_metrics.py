"""Tests of the metrics: both paths against each other and against the plain formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.diff import _kernel, metrics
from goldenctl.diff.metrics import score, score_logits
from goldenctl.diff.sums import Partial, RowErrors

Array = NDArray[Any]
DTYPES = [np.dtype(t) for t in (np.float64, np.float32, ml_dtypes.bfloat16, np.float16)]
# Sums of the two paths differ only in their order.
SUMS = ("actual_squared", "expected_squared", "dot", "error_squared", "error_sum")
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -6e-8, 65504.0, 3.3e38]

needs_kernel = pytest.mark.skipif(not metrics.compiled(), reason="kernel.c is not compiled")


def values(seed: int, size: int, dtype: np.dtype[Any], special: float = 0.0) -> Array:
    """Random values of widely different sizes, a share of them special."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(size) * 10.0 ** rng.integers(-6, 4, size)
    hits = rng.random(size) < special
    out[hits] = rng.choice(SPECIAL, int(hits.sum()))
    with np.errstate(over="ignore"):
        return np.asarray(out.astype(dtype))


def near(expected: Array, seed: int, dtype: np.dtype[Any]) -> Array:
    """What a right implementation might give: expected, with noise in some places."""
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        noise = 1 + 0.01 * rng.standard_normal(expected.size) * (rng.random(expected.size) < 0.7)
        return np.asarray((expected.astype(np.float64) * noise).astype(dtype))


def partial(a: Array, e: Array, rows: RowErrors | None = None, *, kernel: bool) -> Partial:
    return metrics.measure(metrics._job(a, e, 1e-3, 1e-2, rows), use_kernel=kernel)


def assert_same(one: Partial, other: Partial) -> None:
    """Counts, maxima and indices exactly; sums to float64's rounding."""
    for field in dataclasses.fields(Partial):
        x, y = getattr(one, field.name), getattr(other, field.name)
        if field.name in SUMS:
            # Cancellation in the dot product: judge it by the norms.
            scale = math.sqrt(one.actual_squared) * math.sqrt(one.expected_squared)
            assert x == pytest.approx(y, rel=1e-12, abs=1e-12 * scale), field.name
        else:
            assert x == y, field.name


@needs_kernel
@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32),
    st.integers(0, 5000),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.001, 0.3, 1.0]),
)
def test_kernel_equals_numpy(
    seed: int, size: int, actual: np.dtype[Any], expected: np.dtype[Any], special: float
) -> None:
    e = values(seed, size, expected, special)
    a = near(e, seed + 1, actual)
    assert_same(partial(a, e, kernel=True), partial(a, e, kernel=False))


@needs_kernel
@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 2500),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.01]),
)
def test_rows_equal_numpy(
    seed: int, rows: int, length: int, dtype: np.dtype[Any], special: float
) -> None:
    e = values(seed, rows * length, dtype, special).reshape(rows, length)
    a = near(e.reshape(-1), seed + 1, dtype).reshape(rows, length)
    fast, slow = RowErrors.of(e), RowErrors.of(e)
    assert_same(partial(a, e, fast, kernel=True), partial(a, e, slow, kernel=False))
    np.testing.assert_allclose(fast.error_squared, slow.error_squared, rtol=1e-12)
    np.testing.assert_allclose(fast.expected_squared, slow.expected_squared, rtol=1e-12)
    np.testing.assert_array_equal(fast.max_error, slow.max_error)


@needs_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernel_equals_numpy_over_many_ranges(dtype: np.dtype[Any]) -> None:
    e = values(5, 700_001, dtype, 1e-4)
    a = near(e, 6, dtype)
    assert_same(partial(a, e, kernel=True), partial(a, e, kernel=False))


@needs_kernel
def test_every_16_bit_pattern() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    shuffled = np.random.default_rng(1).permutation(bits)
    for dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
        a, e = shuffled.view(dtype), bits.view(dtype)
        assert_same(partial(a, e, kernel=True), partial(a, e, kernel=False))
        for wide in (np.dtype(np.float32), np.dtype(np.float64)):
            with np.errstate(all="ignore"):
                assert partial(e.astype(wide), e, kernel=True).max_ulp == 0
                assert partial(e, e.astype(wide), kernel=True).max_ulp == 0


@needs_kernel
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES[2:]))
def test_rounding_to_16_bits_is_numpys(seed: int, dtype: np.dtype[Any]) -> None:
    """The ULP distance of a wider run needs it: any float32 bits, halfway cases too."""
    rng = np.random.default_rng(seed)
    low = rng.choice([0, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001], 4096)
    bits = (rng.integers(0, 1 << 32, 4096) & 0xFFFFE000 | low).astype(np.uint32)
    wide = bits.view(np.float32)
    with np.errstate(all="ignore"):
        rounded = wide.astype(dtype)
    assert_same(partial(wide, rounded, kernel=True), partial(wide, rounded, kernel=False))
    finite = np.isfinite(wide) & np.isfinite(rounded)
    assert partial(wide[finite], rounded[finite], kernel=True).max_ulp == 0


def formulas(a: Array, e: Array) -> dict[str, float]:
    x, y = a.astype(np.float64).ravel(), e.astype(np.float64).ravel()
    d = x - y
    return {
        "cosine": float(x @ y / np.sqrt((x @ x) * (y @ y))),
        "mse": float(np.mean(d**2)),
        "rel_l2": float(np.linalg.norm(d) / np.linalg.norm(y)),
        "max_abs_error": float(np.abs(d).max()),
        "mean_abs_error": float(np.abs(d).mean()),
        "sqnr_db": float(10 * np.log10((y @ y) / (d @ d))),
        "outside": float(np.count_nonzero(~(np.abs(d) <= 1e-3 + 1e-2 * np.abs(y)))),
        "norm_actual": float(np.linalg.norm(x)),
        "norm_expected": float(np.linalg.norm(y)),
        "max_expected": float(np.abs(y).max()),
        "rms_expected": float(np.sqrt(np.mean(y**2))),
    }


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(8, 3000), st.sampled_from(DTYPES))
def test_metrics_are_the_plain_formulas(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(seed)
    e = rng.standard_normal(size).astype(dtype)
    a = (e.astype(np.float64) + 0.1 * rng.standard_normal(size)).astype(dtype)
    result = score(a, e, atol=1e-3, rtol=1e-2)
    for name, value in formulas(a, e).items():
        assert getattr(result, name) == pytest.approx(value, rel=1e-11), name
    d = np.abs(a.astype(np.float64) - e.astype(np.float64))
    assert result.worst_index == int(d.argmax())
    assert (result.worst_actual, result.worst_expected) == (a[d.argmax()], e[d.argmax()])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 3000), st.data())
def test_non_finite_values_are_counted_and_left_out(seed: int, size: int, data: Any) -> None:
    rng = np.random.default_rng(seed)
    e = rng.standard_normal(size).astype(np.float32)
    a = e + np.float32(0.5)
    where = data.draw(st.integers(0, size - 1))
    kind = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    both = data.draw(st.booleans())
    a[where] = kind
    if both:
        e[where] = kind
    result = score(a, e, atol=0.0, rtol=0.0)
    assert result.compared == size - 1
    assert result.nan_actual == math.isnan(kind)
    assert result.inf_actual == math.isinf(kind)
    assert result.mismatches == (not both)
    assert result.first_mismatch == (None if both else where)
    assert result.outside == size - both
    assert result.worst_index != where


def zeros(count: int) -> Array:
    return np.zeros(count, np.float32)


def full(count: int, value: float) -> Array:
    return np.full(count, value, np.float32)


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
@pytest.mark.parametrize(
    ("actual", "expected", "want"),
    [
        pytest.param(zeros(0), zeros(0), {"count": 0, "compared": 0, "mse": 0.0}, id="empty"),
        pytest.param(
            zeros(5), zeros(5), {"cosine": 1.0, "rel_l2": 0.0, "sqnr_db": math.inf}, id="all zero"
        ),
        pytest.param(
            full(5, 1), zeros(5), {"rel_l2": math.inf, "sqnr_db": -math.inf}, id="zero expected"
        ),
        pytest.param(zeros(5), full(5, 1), {"rel_l2": 1.0, "sqnr_db": 0.0}, id="zero actual"),
        pytest.param(
            full(5, math.nan),
            full(5, math.nan),
            {"compared": 0, "nan_actual": 5, "nan_expected": 5, "mismatches": 0},
            id="all NaN",
        ),
        pytest.param(
            full(5, math.inf), full(5, -math.inf), {"mismatches": 5, "outside": 5}, id="other Inf"
        ),
        pytest.param(full(3, -0.0), full(3, 0.0), {"max_ulp": 0, "outside": 0}, id="signed zero"),
        pytest.param(
            full(1, 3.4e38), full(1, -3.4e38), {"max_ulp": 2 * 0x7F7FC99E}, id="far apart"
        ),
    ],
)
def test_edge_cases(
    actual: Array,
    expected: Array,
    want: dict[str, Any],
    kernel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "compiled", lambda: kernel)
    result = score(actual, expected, atol=0.0, rtol=0.0)
    assert {name: getattr(result, name) for name in want} == want


@pytest.mark.parametrize("name", ["cosine", "rel_l2", "sqnr_db"])
def test_nothing_compared_gives_nan(name: str) -> None:
    assert math.isnan(getattr(score(zeros(0), zeros(0), atol=0, rtol=0), name))


def test_a_scale_of_1_02_shows_in_rel_l2_and_not_in_cosine() -> None:
    e = values(1, 1000, DTYPES[0])
    result = score(e * 1.02, e, atol=0, rtol=0)
    assert result.cosine == pytest.approx(1.0, abs=1e-12)
    assert result.rel_l2 == pytest.approx(0.02)


def test_strided_misaligned_input_and_any_shape() -> None:
    e = values(1, 600, DTYPES[1]).reshape(20, 30)
    assert score(e.T, e.T, atol=0, rtol=0).max_abs_error == 0.0
    raw = np.frombuffer(b"\0" + e.tobytes(), np.uint8)[1:].view(np.float32)
    assert score(raw, e.ravel(), atol=0, rtol=0).max_abs_error == 0.0
    scalar = np.array(1.0, np.float32)
    assert score(scalar, scalar, atol=0, rtol=0).count == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score(zeros(2), zeros(3), atol=0, rtol=0), "shapes differ"),
        (lambda: score(zeros(2), np.zeros(2, int), atol=0, rtol=0), "int64 is not one of"),
        (lambda: score(zeros(2), zeros(2), atol=-1, rtol=0), "must be >= 0"),
        (lambda: score(zeros(2), zeros(2), atol=math.nan, rtol=0), "must be >= 0"),
        (lambda: RowErrors.of(zeros(10), 3), "do not divide"),
        (
            lambda: score(zeros(4), zeros(4), atol=0, rtol=0, rows=RowErrors.of(zeros(2))),
            "another tensor",
        ),
        (lambda: score_logits(zeros(2), zeros(3)), "one shape"),
    ],
)
def test_wrong_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of partial_t is checked before the first call."""

    class Other:
        @staticmethod
        def goldenctl_partial_bytes() -> int:
            return 8

    monkeypatch.setattr(_kernel.ctypes, "CDLL", lambda path: Other)
    assert _kernel._load() is None


def test_logits() -> None:
    e = np.array([[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]], np.float32)
    same = score_logits(e, e)
    assert (same.rows, same.top1_agreement, same.mean_kl) == (2, 1.0, 0.0)
    a = e.copy()
    a[0] = [3.0, 2.0, 1.0]
    other = score_logits(a, e)
    p, q = (np.exp(x) / np.exp(x).sum() for x in (e[0].astype(float), a[0].astype(float)))
    assert other.top1_agreement == 0.5
    assert other.max_kl == pytest.approx(float(np.sum(p * np.log(p / q))))
    assert other.mean_kl == pytest.approx(other.max_kl / 2)


def test_a_tie_in_actual_counts_as_agreement() -> None:
    e, a = np.array([[1.0, 2.0]]), np.array([[2.0, 2.0]])
    assert score_logits(a, e).top1_agreement == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_give_nan(value: float) -> None:
    e = np.array([[1.0, 2.0]])
    result: Any = score_logits(np.array([[value, 2.0]]), e)
    assert math.isnan(result.mean_kl)
