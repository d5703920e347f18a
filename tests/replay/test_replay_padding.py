"""Replays of padded batches: the mask is data, and rows of padding decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.replay.backend import Backend, open_backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay

pytestmark = pytest.mark.slow

NONE = Backend("none", ("none",), {"name": "none"})
ROWS = ("--token-ids", "5,6,7,8,9", "--token-ids", "1,2", "--token-ids", "44", "--batch")
LEFT = (*ROWS, "--decode", "2", "--oracle")
RIGHT = (*ROWS, "--padding", "right", "--force-tokens", "7,8", "--oracle")
MODES = ("sublayer", "op", "chain")
PROBS = "cases/batch/steps/00/layers/01/attention/probs"


def replayed(source: GoldenFile, out: Path, backend: Backend, options: Options) -> GoldenFile:
    replay(source, Path(source.recipe["model"]["path"]), out, backend=backend, options=options)
    return open_golden(out)


@pytest.mark.parametrize(
    ("dtype", "inputs"), [("float32", LEFT), ("bfloat16", RIGHT)], ids=["left", "right"]
)
def test_infinicore_passes_by_its_budget(
    dtype: str,
    inputs: tuple[str, ...],
    golden_of: Callable[..., Path],
    tmp_path: Path,
    harness: Path,
) -> None:
    assert harness.exists()
    source = open_golden(golden_of("tiny", dtype, *inputs))
    for mode in MODES:
        found = replayed(source, tmp_path / "r.h5", open_backend("infinicore"), Options(mode=mode))
        report = compare(source, found, default_policy())
        assert report.ok, (mode, report.first_wrong)
        assert {t.rule for t in report.tensors} == {"budget"}
        # The rule is needed: a row of padding sees what the engine likes.
        if inputs is LEFT:
            assert not np.allclose(found.map(PROBS)[2, :, 0], source.map(PROBS)[2, :, 0], atol=0.1)
        # 7 of 15 tokens are padding; a head's row is a row: 4 of scores, 2 of keys.
        rows = {t.name.partition("/steps/")[2]: t.padding_rows for t in report.tensors}
        assert rows["00/layers/02/mlp/output"] == 7
        assert rows["00/layers/02/attention/scores"] == 28
        assert rows["00/layers/02/attention/k_rope"] == 14
        assert rows["01/layers/02/mlp/output"] == 0


def test_torch_backend_agrees_where_rows_count(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    source = open_golden(golden_of("tiny", "float32", *LEFT))
    for mode in MODES:
        found = replayed(source, tmp_path / "r.h5", NONE, Options(mode=mode))
        assert compare(source, found, default_policy()).ok, mode


def test_a_golden_is_replayed_in_another_dtype(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    """What hides padding is the lowest number of the type computed in, never an infinity."""
    source = open_golden(golden_of("tiny", "float32", *LEFT))
    found = replayed(source, tmp_path / "r.h5", NONE, Options(dtype="bfloat16"))
    for name, info in found.tensors.items():
        assert info.dtype == "bfloat16"
        assert np.isfinite(found.map(name).astype(ml_dtypes.bfloat16).astype("f4")).all(), name


def test_padding_that_is_not_masked_is_seen(
    golden_of: Callable[..., Path], tmp_path: Path, torch_here: None
) -> None:
    golden, out = golden_of("tiny", "float32", *LEFT), tmp_path / "r.h5"
    fault = "no_padding_mask@layers.01.attention.probs"
    assert run(["replay", str(golden), str(out), "--backend", "torch", "--inject", fault]) == 0
    report = compare(open_golden(golden), open_golden(out), default_policy())
    assert not report.ok
    wrong = {s.name.partition("/steps/")[2]: s.first_wrong for s in report.sublayers if s.share > 1}
    assert wrong == {f"{step:02d}/layers/01/attention": "probs" for step in range(3)}


def test_fused_attention_has_no_mask_for_padding(
    golden_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = open_golden(golden_of("tiny", "float32", *LEFT))
    with pytest.raises(UsageError, match="has padding, which fused attention has no mask for"):
        replayed(source, tmp_path / "r.h5", NONE, Options(attention="sdpa"))
