"""Tests that no correct alternative fails in any mode, and what the default mode says of wrong
ones: an op, or only what ops come to together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from goldenctl.diff.judge import compare
from goldenctl.diff.localize import culprits
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.modes import BOTH, MODES
from goldenctl.places import is_composed
from goldenctl.records.report import Report
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.faulty import Call
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Compute
from tests.verdict.conftest import Bench

DTYPES = ("float32", "bfloat16", "float16")
ONE_LAYER = "cases/default/steps/00/layers/01"


def _other(bench: Bench, compute: Compute, *, fused: bool = False) -> Otherwise:
    graph = {path: s for path, s in bench.graph.items() if path.startswith(ONE_LAYER)}
    return Otherwise(bench.golden, graph, bench.emulator, compute, fused=fused)


def _judged(other: Otherwise, golden: GoldenFile, path: Path, mode: str = BOTH) -> Report:
    return compare(golden, other.run(path, mode, "test"), default_policy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_correct_alternative_fails(
    bench_of: Callable[[str], Bench], tmp_path: Path, dtype: str, mode: str
) -> None:
    bench = bench_of(dtype)
    differ = 0
    for label in (*ALTERNATIVES, *FUSED):
        fused = label in FUSED
        compute = only_fused(FUSED[label]) if fused else ALTERNATIVES[label]
        report = _judged(
            _other(bench, compute, fused=fused), bench.golden, tmp_path / "run.h5", mode
        )
        assert [(label, t.name, t.share) for t in report.compared if not t.ok] == []
        differ += sum(t.metrics is not None and t.metrics.rel_l2 > 0 for t in report.compared)
    assert differ > 20


def _second_time(kind: str, change: Callable[[Tensor], Tensor]) -> Compute:
    """Changes every second result of ops of a kind: those whose inputs are not recorded."""
    calls = 0

    def compute(call: Call) -> Tensor | None:
        nonlocal calls
        calls += call.kind == kind
        return change(call.run()) if call.kind == kind and calls % 2 == 0 else None

    return compute


def test_a_composition_is_wrong_though_each_op_is_right(
    bench_of: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of("float32")
    other = _other(bench, _second_time("add", lambda value: value * 1.01))
    report = _judged(other, bench.golden, tmp_path / "run.h5")
    wrong = [t for t in report.compared if not t.ok]
    assert [t.tap for t in wrong] == ["composed/output"] * 2
    assert all(t.sublayer.startswith(ONE_LAYER) for t in wrong)
    assert report.first_wrong == wrong[0]
    assert culprits(report, bench.graph) == wrong


def test_a_wrong_op_is_the_culprit_and_not_what_it_comes_to(
    bench_of: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of("float32")
    scaled = _other(bench, lambda c: c.run() * 1.01 if c.kind == "swiglu" else None)
    report = _judged(scaled, bench.golden, tmp_path / "run.h5")
    wrong = [t.tap for t in report.compared if not t.ok]
    assert wrong == ["swiglu", "composed/output"]
    assert [t.tap for t in culprits(report, bench.graph)] == ["swiglu"]


def test_each_is_judged_by_its_own_scope(bench_of: Callable[[str], Bench], tmp_path: Path) -> None:
    """The same values use less of a sublayer's budget than of an op's."""
    bench = bench_of("bfloat16")
    name = f"{ONE_LAYER}/mlp/output"
    report = _judged(_other(bench, lambda _call: None), bench.golden, tmp_path / "run.h5")
    checks = {t.name: t.checks for t in report.compared}
    composed = next(n for n in checks if is_composed(n) and n.endswith("mlp/composed/output"))
    assert checks[composed][0].limit > checks[name][0].limit > 0
