"""Tests the naming of bugs: reproduced ones by name, all others by their looks only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from tests.verdict.conftest import Bench

DTYPES = ("float32", "bfloat16")


def _names(bench: Bench, place: str, actual: np.ndarray) -> list[tuple[str, ...]]:
    diagnosis = bench.diagnose(place, actual)
    return [tuple(f.name for f in cause.faults) for cause in diagnosis.causes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("rope_interleaved", "layers.01.attention.q_rope"),
        ("theta_1e4", "layers.02.attention.k_rope"),
        ("no_scale", "layers.01.attention.scores"),
        ("no_mask", "layers.01.attention.probs"),
        ("kv_modulo", "layers.01.attention.context"),
        ("quick_gelu", "layers.01.mlp.swiglu"),
        ("k_tail_16", "layers.03.mlp.down_proj"),
        ("scale_1.02", "layers.00.attention.o_proj"),
        ("scale_1.02", "layers.02.mlp.down_proj"),
        ("norm_weight_plus_1", "final_norm.output"),
        ("embedding_shifted", "embedding.output"),
        ("one_nan", "layers.01.mlp.gate_proj"),
        ("nan_row", "layers.01.attention.context"),
        ("one_inf", "layers.01.attention.k_rope"),
        ("fp16_overflow", "layers.01.mlp.up_proj"),
    ],
)
def test_a_fault_is_named(
    bench_of: Callable[[str], Bench], dtype: str, fault: str, place: str
) -> None:
    bench = bench_of(dtype)
    assert _names(bench, place, bench.faulty(place, fault)) == [(fault,)]


def test_a_fault_with_another_layers_weight_leaves_this_layers_alone(
    bench_of: Callable[[str], Bench],
) -> None:
    """The loader converts bfloat16 weights in buffers that it uses again."""
    bench = bench_of("float32")
    path, sublayer, op = bench.place("layers.02.mlp.down_proj")
    other = faulty_op(FAULTS["down_proj_before"], op, Context(bench.config, sublayer))
    assert other is not None
    before = bench.emulator.values(path, sublayer, op)
    elsewhere = bench.emulator.values(path, sublayer, other)
    after = bench.emulator.values(path, sublayer, op)
    assert before is not None
    assert np.array_equal(before, after)
    assert not np.array_equal(before, elsewhere)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("faults", "place"),
    [
        (("rope_interleaved", "scale_1.02"), "layers.01.attention.q_rope"),
        (("no_scale", "scale_1.02"), "layers.01.attention.scores"),
    ],
)
def test_two_faults_at_once_are_named_as_a_pair(
    bench_of: Callable[[str], Bench], dtype: str, faults: tuple[str, ...], place: str
) -> None:
    bench = bench_of(dtype)
    named = _names(bench, place, bench.faulty(place, *faults))
    found = {frozenset(pair) for pair in named}
    assert frozenset(faults) in found
    # Two units of bfloat16 are 1.6 % at most, which its rounding does not tell from 2 %.
    assert found <= {frozenset(faults), frozenset({faults[0], "biased_2_units"})}


def test_faults_with_one_output_are_listed_together(bench_of: Callable[[str], Bench]) -> None:
    """Of a single row of logits, a stale last token leaves zero too."""
    bench = bench_of("float32")
    place = "lm_head.output"
    zero = bench.faulty(place, "zero_row")
    named = {name for cause in _names(bench, place, zero) for name in cause}
    assert named == {"zero_row", "stale_last_token"}
    summary = bench.diagnose(place, zero).summary
    assert summary.startswith("100.0% of the error is explained by '")
    assert "' or '" in summary


def _permuted(e: np.ndarray) -> np.ndarray:
    return e[..., np.random.default_rng(1).permutation(e.shape[-1])]


def _flipped(e: np.ndarray) -> np.ndarray:
    signs = np.random.default_rng(2).choice([-1.0, 1.0], e.shape)
    return (e.astype(np.float64) * signs).astype(e.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: (e.astype(np.float64) * 1.07).astype(e.dtype), "constant scale 1.0"),
        (lambda e: (e.astype(np.float64) + 4.0).astype(e.dtype), "constant offset 4"),
        (_permuted, "intermediate axis permuted"),
        (_flipped, "sign flips"),
    ],
    ids=["scale", "offset", "permutation", "signs"],
)
def test_an_unknown_error_is_only_described(
    bench_of: Callable[[str], Bench],
    dtype: str,
    change: Callable[[np.ndarray], np.ndarray],
    words: str,
) -> None:
    bench = bench_of(dtype)
    place = "layers.01.mlp.gate_proj"
    diagnosis = bench.diagnose(place, change(np.array(bench.expected(place))))
    assert diagnosis.causes == ()
    assert diagnosis.summary.startswith("not explained by a known fault; ")
    assert "the error looks like: " in diagnosis.summary
    assert words in diagnosis.summary


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fault_outside_the_catalogue_gets_no_other_name(
    bench_of: Callable[[str], Bench], dtype: str
) -> None:
    """GELU and quick-GELU are near enough to be taken for each other by a lax test."""
    bench = bench_of(dtype)
    place = "layers.01.mlp.swiglu"
    for fault in ("gelu", "quick_gelu", "no_activation", "scale_1.02"):
        others = [f for f in FAULTS.values() if f.name != fault]
        diagnosis = bench.diagnose(place, bench.faulty(place, fault), faults=others)
        assert diagnosis.causes == ()


def test_diagnosis_leaves_the_golden_alone(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("float32")
    place = "layers.01.attention.q_rope"
    before = np.array(bench.expected(place))
    wrong = bench.faulty(place, "no_rope")
    assert _names(bench, place, wrong) == _names(bench, place, wrong) == [("no_rope",)]
    np.testing.assert_array_equal(bench.expected(place), before)
