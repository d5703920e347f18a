"""Replays of decode steps: what the cache is made of, in each mode, on each backend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.ops.plan import Plan, PlanSublayer
from goldenctl.replay import launch as launch_module
from goldenctl.replay.backend import Backend, open_backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.replay.supervise import Execution, Outcome

pytestmark = pytest.mark.slow

NONE = Backend("none", ("none",), {"name": "none"})
# Two rows, prompt in two chunks, two tokens generated: steps of 3, 2, 1 and 1 tokens.
DECODE = ("--token-ids", "5,6,7,8,9;1,2,3,4,5", "--prefill-chunk", "3", "--decode", "2")
WIDTHS = (3, 2, 1, 1)
MODES = ("sublayer", "op", "chain")


def planned(golden: Path, out: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> Plan:
    seen: list[Plan] = []

    def execute(_command: Any, plan: Plan, **_: Any) -> Execution:
        seen.append(plan)
        return Execution("none", [], [Outcome() for _ in plan.sublayers])

    monkeypatch.setattr(launch_module, "execute", execute)
    source = open_golden(golden)
    folder = Path(source.recipe["model"]["path"])
    replay(source, folder, out, backend=NONE, options=Options(mode=mode))
    return seen[0]


def differing(golden: GoldenFile, run_file: GoldenFile) -> list[str]:
    """Names of tensors with other bits. The logits of the last tokens of two rows are another
    product in torch than that of the row that each is part of: they are only close."""
    heads = [name for name in run_file.tensors if "lm_head" in name]
    for name in heads:
        found, expected = (f.map(name).astype(np.float32) for f in (run_file, golden))
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-2)
    rest = [info for name, info in run_file.tensors.items() if name not in heads]
    return [info.name for info in rest if info.digest != golden.info(info.name).digest]


def attentions(plan: Plan) -> list[PlanSublayer]:
    return [s for s in plan.sublayers if s.name.endswith("layers/01/attention")]


@pytest.mark.parametrize("mode", MODES)
def test_the_cache_is_made_of_the_keys_of_every_step(
    mode: str,
    golden_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden = golden_of("tiny", "float32", *DECODE)
    plan = planned(golden, tmp_path / "r.h5", monkeypatch, mode)
    first, *later = attentions(plan)
    assert [t.name for t in first.tensors if t.name.startswith("past+")] == []
    for width, past, sublayer in zip(WIDTHS[1:], itertools.accumulate(WIDTHS), later, strict=False):
        tensors = {t.name: t for t in sublayer.tensors}
        assert tensors["scores"].shape == (2, 4, width, past + width)
        for name in ("past+k_rope", "past+v_proj"):
            cache = tensors[name]
            assert cache.shape == (2, past + width, 2, 32)
            filled = sorted((p.first, p.first + p.count) for p in cache.parts)
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(filled))
            own = 0 if mode == "op" else 2 * width * 64  # computed, then put behind
            assert sum(p.count for p in cache.parts) == math.prod(cache.shape) - own
            assert {p.file for p in cache.parts} == {1 if mode == "chain" else 0}
        copies = [op for op in sublayer.ops if op.op == "rearrange"]
        assert len(copies) == (0 if mode == "op" else 2)


@pytest.mark.parametrize(
    ("family", "dtype"), [("tiny", "float32"), ("llama-bias-tiny", "bfloat16")]
)
def test_torch_backend_reproduces_every_step(
    family: str, dtype: str, golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    source = open_golden(golden_of(family, dtype, *DECODE))
    folder = Path(source.recipe["model"]["path"])
    for mode in MODES:
        out = tmp_path / f"{mode}.h5"
        replay(source, folder, out, backend=NONE, options=Options(mode=mode))
        tensors = open_golden(out).tensors
        assert len({name.split("/")[3] for name in tensors}) == len(WIDTHS)
        assert differing(source, open_golden(out)) == []


def test_fused_attention_sees_all_of_the_past(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    source = open_golden(golden_of("tiny", "float32", *DECODE))
    folder = Path(source.recipe["model"]["path"])
    options = Options(attention="sdpa", layers=frozenset({0}))
    replay(source, folder, tmp_path / "r.h5", backend=NONE, options=options)
    found = open_golden(tmp_path / "r.h5")
    for step in range(len(WIDTHS)):
        name = f"cases/tokens/steps/{step:02d}/layers/00/attention/context"
        np.testing.assert_allclose(found.map(name), source.map(name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_infinicore_passes_every_step_by_its_budget(
    dtype: str, golden_of: Callable[..., Path], tmp_path: Path, harness: Path
) -> None:
    assert harness.exists()
    source = open_golden(golden_of("tiny", dtype, *DECODE, "--oracle"))
    folder = Path(source.recipe["model"]["path"])
    for mode in MODES:
        out = tmp_path / f"{mode}.h5"
        options = Options(mode=mode)
        replay(source, folder, out, backend=open_backend("infinicore"), options=options)
        report = compare(source, open_golden(out), default_policy())
        assert report.ok, (mode, report.first_wrong)
        assert {t.rule for t in report.tensors} == {"budget"}
        assert len(report.sublayers) == 11 * len(WIDTHS)


def test_taps_of_sublayers_are_enough_for_the_past(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    source = open_golden(golden_of("tiny", "float32", *DECODE, "--taps", "sublayer"))
    folder = Path(source.recipe["model"]["path"])
    for mode in ("sublayer", "chain"):
        replay(source, folder, tmp_path / "r.h5", backend=NONE, options=Options(mode=mode))
        assert differing(source, open_golden(tmp_path / "r.h5")) == []


def test_a_fault_in_one_step_stays_there(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    """Isolated steps read the golden's past, so that each shows its own fault alone."""
    golden, out = golden_of("tiny", "float32", *DECODE, "--oracle"), tmp_path / "r.h5"
    fault = "rope_interleaved@layers.02.attention.k_rope"
    inputs = ["--backend", "torch", "--inject", fault]
    assert run(["replay", str(golden), str(out), *inputs]) == 0
    report = compare(open_golden(golden), open_golden(out), default_policy())
    wrong = {s.name.partition("/steps/")[2]: s.first_wrong for s in report.sublayers if s.share > 1}
    assert wrong == {f"{step:02d}/layers/02/attention": "k_rope" for step in range(len(WIDTHS))}
