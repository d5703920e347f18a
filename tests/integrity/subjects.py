"""What is damaged: small files of every kind, and judges that know what they should say."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from campaign import FOUND, SAME, Judge

from goldenctl import cli
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.recipe import Recipe
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.synth import synth
from goldenctl.sets.describe import tensor_entries, version_entry
from goldenctl.sets.manifest import Manifest, dump_manifest, read_manifest

STEP = "cases/a/steps/00"
HIDDEN = ("batch", "token", "hidden")
RUN_ERROR = 1e-3  # relative: beyond the budget, so that the verdict is not that of equal files
RECIPE: dict[str, Any] = {"model": {}, "dtype": "float32", "note": "x" * 6000}  # beyond 4 KiB


def golden_and_run(folder: Path) -> tuple[Path, Path]:
    """Write a golden with inputs, links, budgets and truths, and a run of it that is wrong."""
    random = np.random.Generator(np.random.PCG64(1))
    group = f"{STEP}/layers/00/attention"
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "constants/rope_cos": random.standard_normal((3, 2)).astype(np.float32),
        "cases/a/token_ids": np.arange(3, dtype=np.int32).reshape(1, 3),
        f"{STEP}/embedding/output": random.standard_normal((1, 3, 4)).astype(np.float32),
    }
    for tap in ("input_layernorm", "q_proj", "k_proj", "v_proj", "context", "output"):
        exact = random.standard_normal((1, 3, 4)).astype(np.float32)
        arrays[f"{group}/{tap}"] = exact
        arrays[f"{group}/budget/{tap}"] = np.full((3, 1, 3, 4), 1e-6, np.float32)
    arrays[f"{group}/oracle/q_proj"] = np.stack([arrays[f"{group}/q_proj"]] * 3).astype(np.float64)
    links = {f"{group}/input": f"{STEP}/embedding/output", f"{group}/value": f"{group}/v_proj"}
    golden = folder / "golden.h5"
    _write(golden, "golden", RECIPE, arrays, links)
    taps = {name: a for name, a in arrays.items() if _role(name) in ("tap", "output")}
    wrong = {name: (a * np.float32(1 + RUN_ERROR)) for name, a in taps.items()}
    content = open_golden(golden).content_digest
    recipe = {**RECIPE, "golden": {"path": "golden.h5", "content_digest": content}}
    run = folder / "run.h5"
    _write(run, "run", {**recipe, "mode": "sublayer"}, wrong, {})
    return golden, run


def reading_judge(golden: Path) -> Judge:
    """Judge whether a golden is read as it was written."""
    expected = open_golden(golden)

    def judge(path: Path) -> str:
        return SAME if dataclasses.replace(open_golden(path), path=golden) == expected else "OTHER"

    return judge


def verdict_judge(golden: Path, run: Path) -> Judge:
    """Judge whether ``diff`` says of a golden or run what it says of the sound ones."""
    expected = _verdict(open_golden(golden), open_golden(run))

    def judge(path: Path) -> str:
        damaged = open_golden(path)
        pair = (
            (damaged, open_golden(run)) if path.name[0] == "g" else (open_golden(golden), damaged)
        )
        return SAME if _verdict(*pair) == expected else "WRONG"

    return judge


def _verdict(golden: GoldenFile, run: GoldenFile) -> object:
    report = compare(golden, run, default_policy())
    return report.sublayers, report.extra, report.exit_code


def manifest_of(golden: Path) -> Path:
    """Write the manifest of a golden beside it, sketches and all."""
    file = open_golden(golden)
    manifest = Manifest(
        name="a",
        version=1,
        versions=(version_entry(file, 1),),
        recipe=Recipe(dtype="float32"),
        tolerance=default_policy(),
        tensors=tensor_entries(file),
    )
    path = golden.with_name("manifest.json")
    path.write_bytes(dump_manifest(manifest))
    return path


def set_of(golden: Path) -> tuple[Path, Path]:
    """Make a golden set of a golden and its manifest; return its golden and its manifest."""
    folder = golden.parent / "goldens" / "a"
    folder.mkdir(parents=True)
    kept = folder / "v1.h5"
    kept.write_bytes(golden.read_bytes())
    return kept, manifest_of(kept)


def check_judge(path: Path) -> Judge:
    """Judge whether ``check`` finds a changed byte of a golden, or what else a manifest says."""
    read = read_manifest if path.suffix == ".json" else Path.read_bytes
    sound, goldens = read(path), path.parent.parent

    def judge(path: Path) -> str:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli.run(["check", path.parent.name, "--integrity", "--goldens", str(goldens)])
        if code == 0:
            return SAME if read(path) == sound else "MISSED"
        return FOUND if code == 4 else f"code{code}"

    assert judge(path) == SAME  # and everything is imported before the first fork
    return judge


def weights_of(folder: Path) -> Path:
    """Write a tiny checkpoint and return its safetensors file."""
    return synth("tiny", folder / "model") / "model.safetensors"


def manifest_judge(manifest: Path) -> Judge:
    """Judge whether a manifest is read as it was written."""
    expected = read_manifest(manifest)

    def judge(path: Path) -> str:
        return SAME if read_manifest(path) == expected else "OTHER"

    return judge


def checkpoint_judge(weights: Path) -> Judge:
    """Judge whether the fingerprint of a checkpoint, which replay compares, tells its damage.

    The variants come faster than the fingerprint's cache may notice, so there is none.
    """
    os.environ["GOLDENCTL_CACHE"] = str(weights.parent / "no" / "cache")
    expected = Checkpoint.open(weights.parent).fingerprint()

    def judge(path: Path) -> str:
        return SAME if Checkpoint.open(path.parent).fingerprint() == expected else FOUND

    return judge


def _role(name: str) -> str:
    folder = name.rpartition("/")[0]
    special = {"constants": "constant", "cases/a": "input"}
    kind = folder.rpartition("/")[2]
    tap = "output" if name.endswith("/output") else "tap"
    return special.get(folder) or (kind if kind in ("budget", "oracle") else tap)


def _write(
    path: Path,
    kind: str,
    recipe: dict[str, Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    links: dict[str, str],
) -> None:
    dims = {2: ("batch", "token"), 3: HIDDEN, 4: ("scope", *HIDDEN)}
    tensors = [
        TensorSpec(name, a.dtype.name, a.shape, dims[a.ndim], _role(name), "linear")
        for name, a in arrays.items()
    ]
    groups = [f"{STEP}/embedding", f"{STEP}/layers/00/attention"]
    with GoldenWriter(
        path, kind=kind, recipe=recipe, tensors=tensors, links=links, groups=groups
    ) as writer:
        for name, array in arrays.items():
            writer.write(name, memoryview(array.reshape(-1).view(np.uint8)))
        writer.seal(sublayers=[SublayerInfo(group, 5) for group in groups])
