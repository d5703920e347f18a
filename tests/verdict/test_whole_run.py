"""What all tensors of a run err together: engines whose weights have few bits, and correct ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.diff.whole_run import METRIC
from goldenctl.ops.few_bits import FEW_BITS
from goldenctl.records.report import PASSED, Report
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.faulty import Call
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.kernels import KERNELS
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Compute
from goldenctl.reference.quantized import SCHEMES
from tests.verdict.conftest import Bench

pytestmark = pytest.mark.slow

MODES = ("op", "sublayer", "op+sublayer", "chain")
Judge = Callable[..., Report]


@pytest.fixture
def judged(bench_of: Callable[[str], Bench], tmp_path: Path) -> Judge:
    """Return what judges a run of the tiny golden whose ops ``compute`` makes."""

    def run(compute: Compute, mode: str, *, dtype: str = "bfloat16", fused: bool = False) -> Report:
        bench = bench_of(dtype)
        other = Otherwise(bench.golden, bench.graph, bench.emulator, compute, fused=fused)
        made = other.run(tmp_path / "run.h5", mode, "other")
        return compare(bench.golden, made, default_policy())

    return run


def in_few_bits(name: str) -> Compute:
    """Return linear layers in few bits, where their width allows it."""

    def compute(call: Call) -> Tensor | None:
        if call.kind != "linear" or call.inputs[0].shape[-1] % SIZES[name]:
            return None
        (x,), (weight, *bias) = call.inputs, call.weights
        x, weight = SCHEMES[name].operands(x, weight)
        return KERNELS["linear"](call.attrs, (x,), (weight, *bias))

    return compute


SIZES = {name: size for name, _, size in FEW_BITS}


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_an_engine_in_few_bits_is_caught_in_every_mode(
    judged: Judge, mode: str, dtype: str
) -> None:
    passed = [name for name in SIZES if judged(in_few_bits(name), mode, dtype=dtype).ok]
    assert passed == []


@pytest.mark.parametrize("mode", ["sublayer", "chain"])
def test_what_passes_by_itself_is_told_as_a_matter_of_the_run(judged: Judge, mode: str) -> None:
    report = judged(in_few_bits("w_int8_channel"), mode)
    first = report.first_wrong
    assert first is not None
    assert first.tap == "q_proj"
    assert "times as far as two correct results are apart (limit 1.28)" in first.message
    assert [check.metric for check in first.checks if check.share > 1.0] == [METRIC]


@pytest.mark.parametrize("mode", ["sublayer", "chain"])
def test_correct_alternatives_pass_as_a_whole(judged: Judge, mode: str) -> None:
    wrong = [name for name, made in ALTERNATIVES.items() if not judged(made, mode).ok]
    wrong += [
        name for name, made in FUSED.items() if not judged(only_fused(made), mode, fused=True).ok
    ]
    assert wrong == []


def test_one_gross_fault_leaves_other_sublayers_alone(judged: Judge) -> None:
    """What fails by itself tells nothing of the other tensors."""
    first = iter([True])

    def doubled(call: Call) -> Tensor | None:
        if call.kind != "swiglu" or not next(first, False):
            return None
        return KERNELS["swiglu"](call.attrs, call.inputs, ()) * 2

    report = judged(doubled, "sublayer")
    wrong = [s.name.partition("layers/")[2] for s in report.sublayers if s.state != PASSED]
    assert wrong == ["00/mlp"]
