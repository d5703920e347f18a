"""Goldens of the same inputs in several dtypes, and verdicts on replays in another dtype."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile, open_golden

pytestmark = pytest.mark.slow

DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants") / "tiny"
    assert run(["synth", "tiny", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def variants(checkpoint: Path) -> dict[str, Path]:
    """Return a golden of every dtype with its budgets; not to be changed."""
    golden = checkpoint.with_name("g.h5")
    inputs = ["--random-tokens", "6", "--dtypes", ",".join(DTYPES), "--oracle"]
    assert run(["record", str(checkpoint), str(golden), *inputs]) == 0
    assert not golden.exists()
    return {dtype: golden.with_name(f"g.{dtype}.h5") for dtype in DTYPES}


def tensors(golden: GoldenFile, *roles: str) -> set[str]:
    return {name for name, info in golden.tensors.items() if info.role in roles}


def test_inputs_are_the_same(variants: dict[str, Path]) -> None:
    files = {dtype: open_golden(path) for dtype, path in variants.items()}
    assert {dtype: file.recipe["dtype"] for dtype, file in files.items()} == {d: d for d in DTYPES}
    ids = [file.info("cases/random-0/token_ids").digest for file in files.values()]
    assert len(set(ids)) == 1
    assert tensors(files["float32"], "tap", "output") == tensors(files["bfloat16"], "tap", "output")


def test_budgets_are_of_the_coarser_dtypes(variants: dict[str, Path]) -> None:
    wanted = {"float32": ["bfloat16", "float16"], "bfloat16": None, "float16": ["bfloat16"]}
    for dtype, further in wanted.items():
        golden = open_golden(variants[dtype])
        assert golden.recipe.get("budget_dtypes") == further
        # One budget for each tensor, and one for each context as a fused kernel makes it.
        count = len(tensors(golden, "tap", "output"))
        count += sum(name.endswith("/context") for name in tensors(golden, "tap"))
        assert len(tensors(golden, "budget")) == count * (1 + len(further or ()))


def test_a_single_recording_is_the_same_golden(
    checkpoint: Path, variants: dict[str, Path], tmp_path: Path
) -> None:
    """--dtypes is only several recordings; budgets of other dtypes change no other tensor."""
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{dtype}.h5"
        options = ["--random-tokens", "6", "--dtype", dtype, "--oracle"]
        assert run(["record", str(checkpoint), str(out), *options]) == 0
        alone, among = open_golden(out), open_golden(variants[dtype])
        digests = {name: info.digest for name, info in alone.tensors.items()}
        assert digests.items() <= {n: i.digest for n, i in among.tensors.items()}.items()
    assert open_golden(out).content_digest == open_golden(variants["bfloat16"]).content_digest


def test_a_budget_in_another_dtype_starts_from_rounded_inputs(
    checkpoint: Path, variants: dict[str, Path]
) -> None:
    """Of a linear layer: how far the float32 result is from the exact product of the inputs
    and weights rounded to bfloat16."""
    from goldenctl.model.checkpoint import Checkpoint

    golden = open_golden(variants["float32"])
    path = "cases/random-0/steps/00/layers/00/mlp"
    weights = Checkpoint.open(checkpoint).map("model.layers.0.mlp.gate_proj.weight")
    rounded = [
        array.astype(ml_dtypes.bfloat16).astype(np.float64)
        for array in (golden.map(f"{path}/post_attention_layernorm"), np.asarray(weights))
    ]
    truth = rounded[0] @ rounded[1].T
    off = golden.map(f"{path}/gate_proj").astype(np.float64) - truth
    budget = golden.map(f"{path}/bfloat16/budget/gate_proj")[0]
    np.testing.assert_allclose(budget[..., 0], np.linalg.norm(off, axis=-1), rtol=1e-3)
    np.testing.assert_allclose(budget[..., 1], np.abs(off).max(-1), rtol=1e-3)
    native = golden.map(f"{path}/budget/gate_proj")[0]
    assert np.all(budget[..., 2] > 2**10 * native[..., 2])  # the floor is that of bfloat16


@pytest.mark.parametrize("mode", ["sublayer", "op", "chain"])
def test_a_replay_in_another_dtype_is_judged_by_its_budget(
    variants: dict[str, Path], harness: Path, tmp_path: Path, mode: str
) -> None:
    """A right engine passes with room, though not much: InfiniCore in bfloat16."""
    assert harness.exists()
    out, report = tmp_path / "r.h5", tmp_path / "r.json"
    golden = str(variants["float32"])
    options = ["--dtype", "bfloat16", "--mode", mode]
    assert run(["replay", golden, str(out), *options]) == 0
    assert run(["diff", golden, str(out), "--json", str(report), "-q"]) == 0
    judged = [t for s in json.loads(report.read_text())["sublayers"] for t in s["tensors"]]
    assert {tensor["rule"] for tensor in judged} == {"budget"}
    assert 0.2 < max(tensor["share"] for tensor in judged) < 0.95


@pytest.mark.parametrize(
    "fault",
    ["rope_interleaved", "rope_position_plus_1", "no_residual", "gelu", "scale_1.02"],
)
def test_faults_are_caught_in_another_dtype(
    variants: dict[str, Path], harness: Path, tmp_path: Path, fault: str
) -> None:
    assert harness.exists()
    out, golden = tmp_path / "r.h5", str(variants["float32"])
    options = ["--dtype", "bfloat16", "--inject", fault]
    assert run(["replay", golden, str(out), *options]) == 0
    assert run(["diff", golden, str(out), "-q"]) == 1


def test_a_golden_in_another_dtype_is_judged_by_the_chain_budget(
    variants: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["diff", *(str(variants[dtype]) for dtype in DTYPES)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("(mode chain, by budget)") == 2


def test_decoded_tokens_are_those_of_the_first(checkpoint: Path, tmp_path: Path) -> None:
    golden = tmp_path / "d.h5"
    options = ["--token-ids", "5,6,7", "--decode", "3", "--dtypes", "float32,bfloat16"]
    assert run(["record", str(checkpoint), str(golden), *options]) == 0
    first, second = (open_golden(golden.with_name(f"d.{d}.h5")) for d in ("float32", "bfloat16"))
    steps = [name for name in first.tensors if name.endswith("/token_ids")]
    assert len(steps) == 4
    assert all(first.info(name).digest == second.info(name).digest for name in steps)


def test_resuming_leaves_what_is_there(
    checkpoint: Path, variants: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--random-tokens", "6", "--dtypes", ",".join(DTYPES), "--oracle"]
    arguments = ["record", str(checkpoint), str(checkpoint.with_name("g.h5")), *options]
    before = {path: path.stat().st_mtime_ns for path in variants.values()}
    capsys.readouterr()
    assert run([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.count("is there already") == 3
    assert {path: path.stat().st_mtime_ns for path in variants.values()} == before
    assert run(arguments) == 2
    assert "it exists already" in capsys.readouterr().err


def test_sets_have_one_name_for_each_dtype(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--goldens", str(tmp_path), "--token-ids", "1,2", "--dtypes", "float32,bfloat16"]
    assert run(["record", str(checkpoint), "--name", "tiny", *options]) == 0
    names = {path.parent.name for path in tmp_path.glob("*/v1.h5")}
    assert names == {"tiny-float32", "tiny-bfloat16"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dtypes", "float32,float33"], "'float33' is not a dtype"),
        (["--dtypes", "float32,float32"], "a dtype is given twice"),
        (["--dtypes", "float32", "--dtype", "float32"], "--dtype and --dtypes: give one of them"),
        (["--budget-dtypes", "bfloat16"], "--budget-dtypes: only --oracle makes budgets"),
        (["--oracle", "--budget-dtypes", "float32"], "has its budget anyway"),
    ],
)
def test_wrong_usage(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    capsys.readouterr()
    assert run(["record", str(checkpoint), str(tmp_path / "g.h5"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []
