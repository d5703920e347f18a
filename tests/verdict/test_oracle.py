"""Tests the budgets: against NumPy in float64, for every op kind, and what they must accept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from goldenctl.cli import run
from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.judge import compare
from goldenctl.diff.metrics import score
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES, BUDGET_STATISTICS
from goldenctl.model.graph import Op
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.twins import TWINS, floors
from tests.verdict.conftest import Bench, record_tiny

Values = NDArray[np.float64]
DTYPES = ("float32", "bfloat16", "float16", "float64")
ATTENTION, MLP = "layers.01.attention", "layers.01.mlp"
TAPS = [
    f"{ATTENTION}.{tap}"
    for tap in ("input_layernorm", "q_proj", "k_norm", "k_rope", "v_proj", "scores", "probs")
] + [f"{ATTENTION}.context", f"{MLP}.gate_proj", f"{MLP}.swiglu", f"{MLP}.output"]


def _exact(op: Op, inputs: list[Values], weights: list[Values]) -> Values:
    """Each op kind in NumPy's float64."""
    x = inputs[0]
    if op.kind == "rms_norm":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + op.attrs["epsilon"]) * weights[0]
    if op.kind == "linear":
        return x.reshape(*x.shape[:2], -1) @ weights[0].T
    if op.kind == "swiglu":
        up, gate = inputs
        return up * gate / (1 + np.exp(-gate))
    if op.kind == "add":
        return x + inputs[1]
    if op.kind == "rope":
        half = x.shape[-1] // 2
        sin, cos = (table[: x.shape[1], None] for table in inputs[2:])
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    if op.kind == "matmul_qk":
        k = np.repeat(inputs[1], x.shape[2] // inputs[1].shape[2], 2)
        return np.einsum("bshd,bthd->bhst", x, k) / np.sqrt(x.shape[-1])
    if op.kind == "causal_softmax":
        hidden = np.triu(np.ones(x.shape[-2:], bool), 1)
        powers = np.exp(np.where(hidden, -np.inf, x) - np.max(x, -1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    assert op.kind == "matmul_pv"
    v = np.repeat(inputs[1], x.shape[1] // inputs[1].shape[2], 2)
    return np.einsum("bhst,bthd->bshd", x, v)


def _truth(bench: Bench, name: str) -> Values:
    path, _, op = bench.place(name)
    golden, loader = bench.golden, bench.wide._loader
    constants = {"rope_sin", "rope_cos"}
    inputs = [
        golden.map(f"constants/{tap}" if tap in constants else f"{path}/{tap}").astype(np.float64)
        for tap in op.inputs
        if tap != "position_ids"
    ]
    if op.kind == "rope":
        inputs.insert(1, np.zeros(0))
    weights = [loader.load(weight).double().numpy() for weight in op.weights]
    return _exact(op, inputs, weights).reshape(bench.expected(name).shape)


def _budget(bench: Bench, name: str, scope: str = "op") -> Budget:
    path, _, op = bench.place(name)
    stored = bench.golden.map(f"{path}/budget/{op.output}")
    return Budget.of(stored, BUDGET_SCOPES.index(scope))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TAPS)
def test_budget_is_the_distance_from_numpy(
    bench_of: Callable[[str], Bench], name: str, dtype: str
) -> None:
    bench = bench_of(dtype)
    error = bench.expected(name).astype(np.float64) - _truth(bench, name)
    rows = error.reshape(-1, error.shape[-1])
    budget = _budget(bench, name)
    # In a 16-bit golden the truth is float32: it errs by parts in 2^16 of a rounding.
    tolerance = (
        {"rtol": 1e-3, "atol": 1e-12} if dtype == "float32" else {"rtol": 0.02, "atol": 1e-5}
    )
    np.testing.assert_allclose(budget.l2, np.linalg.norm(rows, axis=1), **tolerance)
    np.testing.assert_allclose(budget.max, np.abs(rows).max(1), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_budgets_are_of_the_size_of_rounding(bench_of: Callable[[str], Bench], dtype: str) -> None:
    bench = bench_of(dtype)
    eps = {"float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10, "float64": 2**-52}[dtype]
    for name in TAPS:
        expected = bench.expected(name).astype(np.float64)
        for scope in BUDGET_SCOPES:
            budget = _budget(bench, name, scope)
            for part in (budget.l2, budget.max, budget.floor_l2, budget.floor_max):
                assert np.isfinite(part).all()
                assert (part >= 0).all()
            relative = np.linalg.norm(budget.floor_l2) / np.linalg.norm(expected)
            assert 0.05 * eps < relative < 100 * eps, (name, scope)


def test_embedding_is_exact(golden_of: Callable[..., GoldenFile]) -> None:
    golden = golden_of("bfloat16")
    stored = golden.map("cases/default/steps/00/embedding/budget/output")
    assert stored.shape[0] == len(BUDGET_SCOPES)
    assert stored.shape[-1] == len(BUDGET_STATISTICS)
    assert not stored.any()


def test_floors_of_later_scopes_are_no_smaller(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("float32")
    for name in TAPS:
        own = _budget(bench, name).floor_l2
        assert np.all(_budget(bench, name, "sublayer").floor_l2 >= own)
        assert np.all(_budget(bench, name, "chain").floor_l2 >= own)


def test_sublayer_taps_have_the_budgets_of_what_is_kept(
    golden_of: Callable[..., GoldenFile],
) -> None:
    golden = golden_of("float32", "budget", "sublayer")
    full = golden_of("float32")
    path = "cases/default/steps/00/layers/01/attention"
    kept = {name.rpartition("/")[2] for name in golden.tensors if f"{path}/budget/" in name}
    assert kept == {"output", "key", "value"}
    for tap, twin in (("output", "output"), ("key", "k_rope"), ("value", "v_proj")):
        np.testing.assert_array_equal(
            golden.map(f"{path}/budget/{tap}"), full.map(f"{path}/budget/{twin}")
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_truths_agree_with_the_budget(
    golden_of: Callable[..., GoldenFile], dtype: str
) -> None:
    golden = golden_of(dtype, "keep")
    path = "cases/default/steps/00/layers/01"
    for name in ("attention/q_rope", "attention/probs", "mlp/output"):
        folder, _, tap = f"{path}/{name}".rpartition("/")
        truths = golden.map(f"{folder}/oracle/{tap}").astype(np.float64)
        expected = golden.map(f"{folder}/{tap}").astype(np.float64)
        assert truths.shape == (len(BUDGET_SCOPES), *expected.shape)
        stored = golden.map(f"{folder}/budget/{tap}")
        for scope, truth in enumerate(truths):
            distance = np.linalg.norm(expected - truth, axis=-1)
            np.testing.assert_allclose(stored[scope, ..., 0], distance, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("oracle", ["budget", "keep"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_golden_agrees_with_itself(
    golden_of: Callable[..., GoldenFile], dtype: str, oracle: str
) -> None:
    golden = golden_of(dtype, oracle)
    report = compare(golden, golden, default_policy())
    assert report.ok
    rules = {tensor.rule for tensor in report.tensors}
    assert rules == {"budget" if oracle == "budget" else "truth"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_correct_alternative_never_fails(bench_of: Callable[[str], Bench], dtype: str) -> None:
    bench = bench_of(dtype)
    tried = 0
    for path, sublayer in bench.graph.items():
        for op in sublayer.ops:
            name = f"{path}/{op.output}"
            budget = Budget.of(bench.golden.map(f"{path}/budget/{op.output}"), 0)
            for label, alternative in ALTERNATIVES.items():
                if dtype == "float64" and label == "float32 inside":
                    continue
                found = bench.emulator.values(path, sublayer, op, compute=alternative)
                if found is not None:
                    assert _share(found, bench.golden.map(name), budget) <= 1.0, (label, name)
                    tried += 1
    assert tried > 100


def test_twins_along_one_line_widen_the_floor_and_independent_ones_do_not() -> None:
    draws = torch.randn(TWINS, 50, 4096, generator=torch.Generator().manual_seed(1))
    line = draws[:, :, :1] * torch.linspace(-1, 1, 4096)
    for errors, widest in ((draws, 1.05), (line, 4.0)):
        l2, largest = floors(errors)
        plain = errors.pow(2).sum(-1).mean(0).sqrt()
        torch.testing.assert_close(
            (l2 / plain).float(), torch.full((50,), widest), rtol=0.05, atol=0
        )
        assert torch.all(largest <= l2)
    exact, _ = floors(torch.zeros(TWINS, 2, 8))
    assert not exact.any()


@pytest.mark.parametrize("mode", ["sublayer", "chain"])
@pytest.mark.parametrize("preset", ["qwen2-tiny", "mistral-tiny"])
def test_a_correct_engine_passes_where_a_softmax_amplifies(
    preset: str, mode: str, tmp_path: Path
) -> None:
    """Two models on which a single twin without widening failed InfiniCore's own kernels."""
    model, golden, out = tmp_path / "model", tmp_path / "golden.h5", tmp_path / "run.h5"
    assert run(["synth", preset, str(model), "--seed", "5"]) == 0
    inputs = ["--random-tokens", "24", "--seed", "5"]
    kind = ["--dtype", "bfloat16", "--oracle"]
    assert run(["record", str(model), str(golden), *inputs, *kind]) == 0
    assert run(["replay", str(golden), str(out), "--mode", mode]) == 0
    assert run(["diff", str(golden), str(out), "--quiet"]) == 0


def _share(actual: NDArray[Any], expected: NDArray[Any], budget: Budget) -> float:
    rows = RowErrors.of(expected)
    score(actual.reshape(expected.shape), expected, atol=0.0, rtol=0.0, rows=rows)
    checks, _ = check_budget(rows, budget, from_truth=False)
    return max(check.share for check in checks)


def test_two_recordings_have_the_same_budgets(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path, tmp_path: Path
) -> None:
    golden = golden_of("bfloat16")
    again = record_tiny(checkpoint_folder, tmp_path / "again.h5", dtype="bfloat16")
    budgets = [info for info in golden.tensors.values() if info.role == "budget"]
    assert budgets
    for info in budgets:
        np.testing.assert_array_equal(again.map(info.name), golden.map(info.name))
