"""Tests goldens whose reference is not finite: PyTorch overflows, or a weight is NaN."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.golden.schema import BUDGET_STATISTICS
from goldenctl.model.synth import synth

pytestmark = pytest.mark.usefixtures("backend")
IDS = "5,17,2,95,33,8"
NAN_WEIGHT = "model.layers.2.mlp.down_proj.weight"
BIG_WEIGHT = "model.layers.1.mlp.up_proj.weight"
SCORES = "cases/tokens/steps/00/layers/00/attention/scores"
Weights = dict[str, torch.Tensor]


def _overflowing(weights: Weights) -> None:
    for x in "qk":
        weights[f"model.layers.0.self_attn.{x}_proj.weight"] *= 40


def _nan_weight(weights: Weights) -> None:
    weights[NAN_WEIGHT][3, 5] = float("nan")


def _big_weight(weights: Weights) -> None:
    """More than float16 holds."""
    weights.update({name: weight.float() for name, weight in weights.items()})
    weights[BIG_WEIGHT][3, 5] = 1e5


CHANGES = {"overflow": _overflowing, "nan": _nan_weight, "big": _big_weight}
WARNINGS = {
    "overflow": [
        "in float16, first at layers.00.attention.scores (op matmul_qk) of cases/tokens/steps/00; ",
        "record with --dtype bfloat16 or float32",
    ],
    "nan": [
        "first at layers.02.mlp.down_proj (op linear)",
        f"its weight {NAN_WEIGHT} holds NaN in the checkpoint, so no dtype helps",
    ],
    "big": [
        "first at layers.01.mlp.up_proj (op linear)",
        f"its weight {BIG_WEIGHT} has values up to 1e+05: record with --dtype bfloat16 or float32",
    ],
}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what makes a checkpoint whose reference is not finite in float16."""
    folder = tmp_path_factory.mktemp("models")
    right = synth("llama-tiny", folder / "right")

    def made(kind: str) -> Path:
        if not (folder / kind).exists():
            shutil.copytree(right, folder / kind)
            weights = load_file(right / "model.safetensors")
            CHANGES[kind](weights)
            save_file(weights, folder / kind / "model.safetensors", metadata={"format": "pt"})
        return folder / kind

    return made


@pytest.fixture(scope="module")
def golden_at(model_of: Callable[[str], Path]) -> Callable[[str], Path]:
    def recorded(kind: str) -> Path:
        path = model_of(kind).with_suffix(".h5")
        if not path.exists():
            arguments = ["--token-ids", IDS, "--dtype", "float16", "--oracle"]
            assert run(["record", str(model_of(kind)), str(path), *arguments]) == 0
        return path

    return recorded


@pytest.mark.parametrize("kind", CHANGES)
def test_record_warns_in_one_line(
    model_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "g.h5"
    words = ["record", str(model_of(kind)), str(path), "--token-ids", IDS, "--dtype", "float16"]
    assert run([*words, "--taps", "sublayer"]) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning: ")]
    assert line.startswith("warning: PyTorch itself yields ")
    for words_of_it in WARNINGS[kind]:
        assert words_of_it in line
    assert line == f"warning: {open_golden(path).recipe['not_finite']}"


def test_record_is_silent_where_all_is_finite(
    model_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.h5"
    words = ["record", str(model_of("overflow")), str(path), "--token-ids", IDS]
    assert run([*words, "--dtype", "bfloat16"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert "not_finite" not in open_golden(path).recipe


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.slow), "infinicore"])
def test_no_right_engine_is_blamed(
    golden_at: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    kind: str,
) -> None:
    """Warnings of NumPy are errors here. InfiniCore does not overflow where PyTorch does."""
    golden, out, report = golden_at(kind), tmp_path / "r.h5", tmp_path / "r.json"
    for mode in ("sublayer", "op", "chain"):
        words = ["--backend", backend, "--mode", mode, "--force"]
        assert run(["replay", str(golden), str(out), *words]) == 0
        capsys.readouterr()
        assert run(["diff", str(golden), str(out), "--json", str(report)]) == 0
        first, *rest = capsys.readouterr().out.splitlines()
        assert "not compared: the logits (lm_head.output)" in first
        said = " ".join(line.strip() for line in rest)  # long lines are broken
        assert "not judged: " in said
        assert WARNINGS[kind][0] in said
        tensors = [t for s in json.loads(report.read_text())["sublayers"] for t in s["tensors"]]
        states = {t["name"]: t["state"] for t in tensors}
        assert states["cases/tokens/steps/00/lm_head/output"] == "not_judged"
        assert list(states.values()).count("passed") >= 9
    blamed = ["blame", str(golden), "--backend", backend]
    assert run(blamed) == 0
    printed = capsys.readouterr().out
    assert "no culprit" in printed
    assert "not judged: " in printed


@pytest.mark.parametrize("fault", ["one_nan@layers.00.mlp.up_proj", "gelu@layers.00.mlp"])
def test_a_real_culprit_is_still_found(
    golden_at: Callable[[str], Path], capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """In a tensor that is finite, and before the first that is not."""
    assert run(["blame", str(golden_at("nan")), "--inject", fault]) == 1
    printed = capsys.readouterr().out
    assert printed.count("✗ culprit") == 1
    assert "✗ culprit layers.00.mlp." in printed
    assert "of the error is explained by" in printed


def test_the_budget_tells_that_the_truth_is_finite(golden_at: Callable[[str], Path]) -> None:
    """Of scores that float16 cannot hold; not of what follows from a NaN weight."""
    budget = open_golden(golden_at("overflow"))
    folder, _, tap = SCORES.rpartition("/")
    floors = BUDGET_STATISTICS.index("floor_l2")
    stored = torch.from_numpy(budget.verify(f"{folder}/budget/{tap}"))
    assert bool(torch.isinf(stored[..., 0]).any())
    assert bool(torch.isfinite(stored[..., floors]).all())
    probs = torch.from_numpy(budget.verify(f"{folder}/budget/probs"))
    assert bool(torch.isfinite(probs[1:, ..., floors]).all())
    nan = open_golden(golden_at("nan"))
    of_nan = torch.from_numpy(nan.verify("cases/tokens/steps/00/layers/02/mlp/budget/down_proj"))
    assert bool(torch.isnan(of_nan[..., floors]).all())


@pytest.mark.parametrize("kind", ["overflow", "nan"])
def test_golden_sets_hold_such_goldens(
    golden_at: Callable[[str], Path],
    model_of: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """The manifest says it, and another recording is judged by sketch and digest."""
    folder = ["--goldens", str(tmp_path)]
    words = ["--token-ids", IDS, "--dtype", "float16", "--oracle", *folder]
    assert run(["record", str(model_of(kind)), "--name", kind, *words]) == 0
    manifest = (tmp_path / kind / "manifest.json").read_text()
    assert WARNINGS[kind][0] in manifest
    assert run(["check", kind, "--backend", "torch", *folder]) == 0
    (tmp_path / kind / "v1.h5").unlink()
    capsys.readouterr()
    assert run(["check", kind, "--record", *folder]) == 0
    assert run(["inspect", str(golden_at(kind))]) == 0


@pytest.mark.slow
def test_selftest_leaves_out_what_is_not_finite(
    golden_at: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["selftest", str(golden_at("nan")), "--layers", "2"])
    printed = capsys.readouterr()
    assert "left out: 2 of 17 ops, whose results are not all finite" in printed.err
    assert re.search(r"false alarms +0 of ", printed.out)
