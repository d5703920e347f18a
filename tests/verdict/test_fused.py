"""Tests the verdict on fused attention, whose context starts from queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.judge import compare
from goldenctl.diff.metrics import score
from goldenctl.diff.scopes import NO_FUSED_BUDGET, is_fused
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.records.report import Report
from goldenctl.replay.backend import open_backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from tests.verdict.conftest import record_tiny

pytestmark = pytest.mark.slow

DTYPES = ("float32", "bfloat16", "float16")
PATH = "cases/default/steps/00/layers/01/attention"


def _judged(golden: GoldenFile, folder: Path, path: Path, mode: str = "op") -> Report:
    options = Options(mode=mode, attention="sdpa")
    replay(golden, folder, path, backend=open_backend("torch"), options=options)
    return compare(golden, open_golden(path), default_policy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_own_fused_attention_passes_in_mode_op(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path, tmp_path: Path, dtype: str
) -> None:
    report = _judged(golden_of(dtype), checkpoint_folder, tmp_path / "run.h5")
    contexts = [tensor for tensor in report.compared if tensor.tap == "context"]
    assert report.ok
    assert {tensor.rule for tensor in contexts} == {"budget"}
    assert 0 < max(tensor.share for tensor in contexts) < 0.8


@pytest.mark.parametrize("selection", [Selection(oracle="budget", fused_budget=False), Selection()])
def test_a_golden_without_such_a_budget_gives_no_false_alarm(
    checkpoint_folder: Path, tmp_path: Path, selection: Selection
) -> None:
    path = tmp_path / "golden.h5"
    golden = record_tiny(checkpoint_folder, path, dtype="bfloat16", selection=selection)
    assert "fused_budget" not in golden.recipe
    report = _judged(golden, checkpoint_folder, tmp_path / "run.h5")
    said = {tensor.message for tensor in report.compared if tensor.tap == "context"}
    assert report.ok
    assert said == ({NO_FUSED_BUDGET} if selection.oracle == "budget" else {""})


def test_the_terminal_says_in_one_line_that_another_budget_judged(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = Selection(oracle="budget", fused_budget=False)
    golden = record_tiny(checkpoint_folder, tmp_path / "golden.h5", selection=selection)
    _judged(golden, checkpoint_folder, tmp_path / "run.h5")
    assert run(["diff", str(golden.path), str(tmp_path / "run.h5")]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(NO_FUSED_BUDGET) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_budget_sees_a_wrong_scale_and_a_lost_key(
    golden_of: Callable[..., GoldenFile], dtype: str
) -> None:
    golden = golden_of(dtype)
    stored = golden.map(f"{PATH}/fused/budget/context")
    expected = golden.map(f"{PATH}/context")
    assert stored.shape == (1, *expected.shape[:-1], 4)
    lost = expected.copy()
    lost[:, -1] = lost[:, -2]
    for wrong in (expected * np.float32(1.05).astype(expected.dtype), lost):
        rows = RowErrors.of(expected)
        score(wrong.astype(expected.dtype), expected, atol=0.0, rtol=0.0, rows=rows)
        checks, _ = check_budget(rows, Budget.of(stored, 0), from_truth=False)
        assert max(check.share for check in checks) > 1.0


def test_an_engines_dump_without_probs_is_judged_as_fused(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path, tmp_path: Path
) -> None:
    """A dump that stands for inputs from the golden, as its map says, and has no probs."""
    golden = golden_of("float32")
    _judged(golden, checkpoint_folder, tmp_path / "run.h5")
    context = open_golden(tmp_path / "run.h5").map(f"{PATH}/context")
    dump, mapping, out = tmp_path / "dump.npz", tmp_path / "map.toml", tmp_path / "imported.h5"
    np.savez(dump, **{"ctx.1": context})
    mapping.write_text(
        'map_version = 1\nmode = "op"\nlacking = "not_computed"\n'
        '[[tensor]]\ngolden = "layers.{layer}.attention.context"\ndump = "ctx.{layer}"\n',
        encoding="utf-8",
    )
    words = ["import", str(dump), str(out), "--golden", str(golden.path), "--map", str(mapping)]
    assert run(words) == 0
    imported = open_golden(out)
    assert is_fused(imported, golden.tensors[f"{PATH}/context"])
    report = compare(golden, imported, default_policy())
    assert report.ok
    assert [t.rule for t in report.compared] == ["budget"]
