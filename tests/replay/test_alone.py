"""Rows of a batch, replayed alone, against the same rows in the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.ops.inject import parse_injection
from goldenctl.records.report import Report
from goldenctl.replay.backend import Backend, open_backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.studies.alone import alone_vs_batched, cut, rows_of

pytestmark = pytest.mark.slow

NONE = Backend("none", ("none",), {"name": "none"})
ROWS = ("--token-ids", "5,6,7,8,9", "--token-ids", "1,2", "--token-ids", "44", "--batch")
LEFT = (*ROWS, "--decode", "2", "--oracle")
RIGHT = (*ROWS, "--padding", "right", "--force-tokens", "7,8", "--oracle", "keep")


def compared(source: GoldenFile, folder: Path, backend: Backend, options: Options) -> Report:
    checkpoint = Path(source.recipe["model"]["path"])
    replay(source, checkpoint, folder / "r.h5", backend=backend, options=options)
    return alone_vs_batched(
        source,
        open_golden(folder / "r.h5"),
        checkpoint,
        backend=backend,
        options=options,
        policy=default_policy(),
        folder=folder,
    )


@pytest.mark.parametrize(
    "inputs", [pytest.param(LEFT, marks=pytest.mark.slow), RIGHT], ids=["left", "right"]
)
def test_a_cut_row_is_the_row_recorded_alone(
    inputs: tuple[str, ...], golden_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Cut from the batch, a row has the tensors of its own recording, up to rounding."""
    source = open_golden(golden_of("tiny", "float32", *inputs))
    rows = rows_of(source)
    assert [row.alone.token_ids for row in rows] == [((5, 6, 7, 8, 9),), ((1, 2),), ((44,),)]
    found = cut(source, rows, tmp_path / "cut.h5")
    for row in rows[1:2]:
        forced = ",".join(map(str, row.alone.forced[0]))
        ids = ",".join(map(str, row.alone.token_ids[0]))
        oracle = inputs[inputs.index("--oracle") :]
        alone = ("--token-ids", ids, "--force-tokens", forced, *oracle)
        recorded = open_golden(golden_of("tiny", "float32", *alone))
        for name, info in recorded.tensors.items():
            mine = name.replace("/tokens/", f"/{row.alone.name}/")
            if name.startswith("cases/"):
                assert found.info(mine).shape == info.shape, name
            if info.role in ("input", "tap", "output"):
                np.testing.assert_allclose(found.map(mine), recorded.map(name), 1e-3, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "inputs"), [("op", LEFT), ("chain", RIGHT)])
def test_infinicore_agrees_with_itself(
    mode: str,
    inputs: tuple[str, ...],
    golden_of: Callable[..., Path],
    tmp_path: Path,
    harness: Path,
) -> None:
    assert harness.exists()
    source = open_golden(golden_of("tiny", "float32", *inputs))
    report = compared(source, tmp_path, open_backend("infinicore"), Options(mode=mode))
    assert report.ok, report.first_wrong
    assert len(report.sublayers) == 3 * 3 * 11
    assert {t.rule for t in report.tensors} <= {"budget", "truth"}


def test_a_kernel_that_depends_on_the_batch_is_named(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    """The middle token's row is lost: for a short row, padding and its own length move it."""
    source = open_golden(golden_of("tiny", "float32", *LEFT))
    faults = (parse_injection("zero_row@layers.01.mlp.up_proj"),)
    report = compared(source, tmp_path, NONE, Options(faults=faults, layers=frozenset({1})))
    beyond = [s for s in report.sublayers if s.share > 1]
    wrong = {s.name.partition("/layers/")[0]: s.first_wrong for s in beyond}
    assert wrong == {f"cases/batch-row-{n}/steps/00": "up_proj" for n in (1, 2)}
    assert report.first_wrong is not None
    assert report.first_wrong.name == "cases/batch-row-1/steps/00/layers/01/mlp/up_proj"


def test_without_a_batch_there_is_nothing_to_compare(
    golden_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(golden_of()), str(tmp_path / "r.h5"), "--alone-vs-batched"]
    assert run(arguments) == 2
    assert "no case has more than one row" in capsys.readouterr().err
    chunked = golden_of("tiny", "float32", *ROWS, "--prefill-chunk", "2")
    with pytest.raises(UsageError, match="has padding in a prompt taken in chunks"):
        rows_of(open_golden(chunked))


def test_the_command_says_where(
    golden_of: Callable[..., Path],
    tmp_path: Path,
    torch_here: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    golden, out = golden_of("tiny", "float32", *LEFT), tmp_path / "r.h5"
    arguments = ["replay", str(golden), str(out), "--backend", "torch", "--alone-vs-batched"]
    assert run([*arguments, "--inject", "zero_row@layers.01.mlp.up_proj", "--layers", "1"]) == 1
    said = capsys.readouterr().out
    assert "each row alone against the same row in its batch" in said
    assert "first wrong: batch-row-1/00: layers.01.mlp.up_proj" in said
