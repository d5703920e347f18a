"""Tests of the tolerance table, the user's file, and what the limits let through."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.diff.metrics import score
from goldenctl.diff.tolerance import (
    CLASSIC,
    Limits,
    Policy,
    Scores,
    chain_limits,
    check_limits,
    default_policy,
    limits_for,
    load_policy,
    scale_error,
)
from goldenctl.dtypes import DTYPES, FLOAT_DTYPES
from goldenctl.errors import UsageError

Array = NDArray[Any]
OPS = ("rms_norm", "linear", "rope", "matmul_qk", "causal_softmax", "matmul_pv", "swiglu", "add")
TYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


def passes(actual: Array, expected: Array, limits: Limits) -> bool:
    checks = list(check_limits(score(actual, expected, atol=0, rtol=0), limits))
    return bool(checks) and all(check.share <= 1.0 for check in checks)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_a_scale_of_1_02_is_beyond_every_default_limit(dtype: str, op: str) -> None:
    rng = np.random.default_rng(1)
    e = rng.standard_normal(4096).astype(DTYPES[dtype].numpy)
    a = (e.astype(np.float64) * 1.02).astype(DTYPES[dtype].numpy)
    assert not passes(a, e, default_policy().limits(dtype, op))
    assert passes(e, e, default_policy().limits(dtype, op))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_a_second_rounding_is_within_every_default_limit(dtype: str, op: str) -> None:
    """Each element one epsilon off, up or down: what two right implementations may do."""
    rng = np.random.default_rng(2)
    e = rng.standard_normal(4096).astype(DTYPES[dtype].numpy)
    noise = 1 + DTYPES[dtype].eps * rng.choice([-1.0, 1.0], e.size)
    a = (e.astype(np.float64) * noise).astype(DTYPES[dtype].numpy)
    assert passes(a, e, default_policy().limits(dtype, op))


def softmax(x: Array, cast: np.dtype[Any], *, early: bool) -> Array:
    """Softmax in float32; ``early`` rounds exp before the sum, as InfiniCore's CPU kernel."""
    exp = np.exp(x - x.max(axis=-1, keepdims=True)).astype(np.float32)
    if early:
        exp = exp.astype(cast).astype(np.float32)
    return np.asarray((exp / exp.sum(axis=-1, keepdims=True)).astype(cast))


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.1, 8))
def test_a_softmax_that_rounds_early_passes(dtype: str, seed: int, spread: float) -> None:
    x = np.random.default_rng(seed).standard_normal((8, 64)).astype(np.float32) * spread
    x = x.astype(TYPES[dtype]).astype(np.float32)
    late, early = (softmax(x, TYPES[dtype], early=flag) for flag in (False, True))
    assert passes(early, late, default_policy().limits(dtype, "causal_softmax"))


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(4, 512))
def test_a_norm_that_rounds_once_passes(dtype: str, seed: int, width: int) -> None:
    """Hugging Face rounds before it multiplies by the weight, InfiniCore only after."""
    rng = np.random.default_rng(seed)
    x, weight = (rng.standard_normal((16, width)).astype(np.float32) for _ in range(2))
    weight = weight.astype(TYPES[dtype]).astype(np.float32)
    y = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    once = (y * weight).astype(TYPES[dtype])
    twice = (y.astype(TYPES[dtype]).astype(np.float32) * weight).astype(TYPES[dtype])
    assert passes(once, twice, default_policy().limits(dtype, "rms_norm"))


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 64), seed=st.integers(0, 2**32), sign=st.sampled_from([-1.0, 1.0]))
def test_errors_along_a_row_pass_where_rows_are_few(
    dtype: str, rows: int, seed: int, sign: float
) -> None:
    """A channel that is most of a row carries the row's error with it; rows are independent."""
    e = np.random.default_rng(seed).standard_normal((rows, 64))
    e[:, 7] = 100.0
    limit = default_policy().limits(dtype, "linear").rel_l2
    assert limit is not None
    a = e * (1 + 0.8 * limit * sign * min(1.0, 2 / math.sqrt(rows)))
    limits = limits_for(default_policy(), "linear", (dtype, dtype), "sublayer", shape=e.shape)
    assert passes(a, e, limits)
    assert not passes(e * (1 + 1.1 * limit * sign), e, limits)
    many = limits_for(default_policy(), "linear", (dtype, dtype), "sublayer", shape=(1024, 64))
    assert many == default_policy().limits(dtype, "linear")


@pytest.mark.parametrize(
    ("dtype", "mode", "scores", "factor"),
    [
        ("bfloat16", "sublayer", Scores(8.0, 1 << 20), 1),  # the sum is made in float32
        ("bfloat16", "sublayer", Scores(32.0, 7), 4),
        ("bfloat16", "op", Scores(32.0, 7), 1),  # the scores are the golden's own
        ("float32", "sublayer", Scores(32.0, 2048), 4),
        ("float32", "op", Scores(32.0, 2048), 2),
        ("float32", "sublayer", Scores(0.1, 1024), 1),
    ],
)
def test_a_softmax_of_unusual_scores_is_given_more_room(
    dtype: str, mode: str, scores: Scores, factor: float
) -> None:
    shape = (1, 64, 2, 16)
    for op in ("causal_softmax", "matmul_pv"):
        usual, got = (
            limits_for(default_policy(), op, (dtype, dtype), mode, shape=shape, scores=given)
            for given in (Scores(1.0, 8), scores)
        )
        assert msgspec.structs.astuple(got) == tuple(
            value and value * factor for value in msgspec.structs.astuple(usual)
        )


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("largest", [1e30, math.inf])
def test_no_scores_make_a_check_that_cannot_fail(dtype: str, largest: float) -> None:
    scores = Scores(largest, 8)
    got = limits_for(default_policy(), "linear", (dtype, dtype), "sublayer", scores=scores)
    assert got.rel_l2 == pytest.approx(0.25)


def test_a_file_of_the_user_holds_as_it_is() -> None:
    policy = Policy("mine", {"*/*": Limits(rel_l2=0.1, scale=1e-3)})
    got = limits_for(
        policy,
        "linear",
        ("float32", "float32"),
        "chain",
        shape=(1, 4),
        scores=Scores(99.0, 1 << 20),
    )
    assert got == Limits(rel_l2=0.1, scale=1e-3)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_an_embedding_is_a_copy(dtype: str) -> None:
    assert default_policy().limits(dtype, "embedding") == Limits(rel_l2=0.0)


def test_classic_is_the_rule_of_porting_guides() -> None:
    limits = Limits(cosine=0.99, mse=1e-4, rel_l2=0.01)
    assert CLASSIC.limits("bfloat16", "rope") == CLASSIC.limits("float64", "add") == limits
    assert not CLASSIC.budget


def test_one_wrong_element_shows_in_peak() -> None:
    e = np.ones(100_000, np.float32)
    a = e.copy()
    a[7] = 1.5
    limits = default_policy().limits("bfloat16", "linear")
    shares = {c.metric: c.share for c in check_limits(score(a, e, atol=0, rtol=0), limits)}
    assert shares["rel_l2"] <= 1.0
    assert shares["peak"] > 1.0


def test_scale_is_told_from_noise() -> None:
    rng = np.random.default_rng(4)
    e = rng.standard_normal(200_000)
    noisy = score(e + 0.03 * rng.standard_normal(e.size), e, atol=0, rtol=0)
    scaled = score(e * 1.02, e, atol=0, rtol=0)
    assert scale_error(noisy) < 5e-4
    assert scale_error(scaled) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("limits", "actual", "want"),
    [
        (Limits(rel_l2=0.1), [1.1], True),
        (Limits(rel_l2=0.1), [1.2], False),
        (Limits(mse=1.0), [2.0], True),
        (Limits(mse=1.0), [2.1], False),
        (Limits(max_ulp=1.0), [np.nextafter(1.0, 2.0)], True),
        (Limits(max_ulp=1.0), [1.0 + 1e-15], False),
        (Limits(peak=0.5), [1.5], True),
        (Limits(peak=0.5), [1.6], False),
        (Limits(cosine=0.99), [5.0], True),
        (Limits(cosine=0.99), [-1.0], False),
        (Limits(rel_l2=0.0), [1.0], True),
        (Limits(), [1.0], False),
    ],
)
def test_each_limit_alone(limits: Limits, actual: list[float], want: bool) -> None:
    # 1.1 - 1 is a little more than 0.1 in float64, hence a limit with some room.
    if limits.rel_l2:
        limits = Limits(rel_l2=limits.rel_l2 * (1 + 1e-12))
    assert passes(np.array(actual), np.array([1.0]), limits) == want


@pytest.mark.parametrize(
    "limits", [Limits(rel_l2=1e30), Limits(cosine=0.1), Limits(scale=1e30), Limits(peak=1e30)]
)
def test_an_all_zero_golden_demands_zero(limits: Limits) -> None:
    zero, one = np.zeros(4), np.ones(4)
    assert passes(zero, zero, limits)
    assert not passes(one, zero, limits)


@settings(deadline=None)
@given(st.floats(0, 2), st.floats(1, 10))
def test_a_larger_error_uses_a_larger_share(error: float, growth: float) -> None:
    e = np.random.default_rng(5).standard_normal(100)
    d = np.random.default_rng(6).standard_normal(100)
    limits = Limits(rel_l2=0.1, mse=0.1, peak=0.1)
    small = check_limits(score(e + error * d, e, atol=0, rtol=0), limits)
    large = check_limits(score(e + error * growth * d, e, atol=0, rtol=0), limits)
    assert all(s.share <= b.share * (1 + 1e-9) for s, b in zip(small, large, strict=True))


def test_a_chain_is_given_more_room_but_for_cosine() -> None:
    assert chain_limits(Limits(rel_l2=0.1, cosine=0.9)) == Limits(rel_l2=0.8, cosine=0.9)


def test_the_first_matching_key_holds() -> None:
    table = {
        "*/*": Limits(rel_l2=4),
        "*/rope": Limits(rel_l2=3),
        "float32/*": Limits(rel_l2=2),
        "float32/rope": Limits(rel_l2=1),
    }
    policy = Policy("test", table)
    found = [
        policy.limits(*key).rel_l2
        for key in (
            ("float32", "rope"),
            ("float32", "add"),
            ("float16", "rope"),
            ("float16", "add"),
        )
    ]
    assert found == [1, 2, 3, 4]


def test_the_file_of_the_documentation_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/tolerances.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    policy = load_policy(str(path))
    assert policy.name == "mine.toml"
    assert policy.limits("bfloat16", "rope") == Limits(rel_l2=0.01, max_ulp=2)
    assert policy.limits("float32", "add").peak == 0.02


def test_the_table_of_the_documentation_is_the_code() -> None:
    """docs/tolerances.md gives each op's limit in epsilons."""
    text = (Path(__file__).parents[2] / "docs/tolerances.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = {}
    for names, narrow, wide in rows[2:]:
        for op in names.split(", "):
            found[op] = (float(narrow.split(":")[0]), float(wide.split(":")[0]))
    policy = default_policy()
    for op in ("embedding", *OPS):
        for dtype in FLOAT_DTYPES:
            limit = policy.limits(dtype, op).rel_l2
            assert limit is not None
            assert limit / DTYPES[dtype].eps == found[op][dtype in ("float32", "float64")], op


def test_names_are_profiles() -> None:
    assert load_policy("default") == default_policy()
    assert load_policy("classic") is CLASSIC


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["bfloat16/rope"]\nrel_l3 = 1', "not a tolerance file.*unknown field `rel_l3`"),
        ('["bfloat16/rope"]\nrel_l2 = "x"', "not a tolerance file.*Expected `float"),
        ("nonsense", "not a tolerance file"),
        ("top = 1", "not a tolerance file.*Expected `object`"),
        ('["bfloat61/rope"]\nrel_l2 = 1', "'bfloat61/rope' is not DTYPE/OP"),
        ('["bfloat16/ropes"]\nrel_l2 = 1', "'bfloat16/ropes' is not DTYPE/OP"),
        ("[bfloat16]\nrel_l2 = 1", "'bfloat16' is not DTYPE/OP"),
        ('["*/*"]', "needs at least one limit"),
        ('["*/*"]\nrel_l2 = -1', "finite and not negative"),
        ('["*/*"]\nrel_l2 = inf', "finite and not negative"),
        ('["*/*"]\nrel_l2 = nan', "finite and not negative"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_policy(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_silent_table_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use default, classic, or a TOML file"):
        load_policy(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="says nothing of float16 outputs of rope"):
        Policy("p", {"float32/*": Limits(rel_l2=1)}).limits("float16", "rope")


def test_a_nan_metric_is_not_within_any_limit() -> None:
    empty = score(np.zeros(0), np.zeros(0), atol=0, rtol=0)
    shares = [c.share for c in check_limits(empty, Limits(rel_l2=1, cosine=0.5))]
    assert all(math.isnan(share) for share in shares)
    assert not any(share <= 1.0 for share in shares)
