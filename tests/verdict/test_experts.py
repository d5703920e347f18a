"""Near ties of a router: other experts that rounding may choose pass, any others fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.synth import synth
from goldenctl.records.report import Report
from goldenctl.reference.faulty import Call
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Compute, Emulator
from goldenctl.reference.record import Recording, record
from goldenctl.replay.bind import choose_sublayers

TWINS = (2, 5)  # experts of layer 0 between which the router cannot tell


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synth("qwen3-moe-tiny", tmp_path_factory.mktemp("experts") / "model", 3)
    path, offset, size = _router(folder)
    data = bytearray(path.read_bytes())
    first, second = (offset + number * size for number in TWINS)
    data[second : second + size] = data[first : first + size]
    path.write_bytes(data)
    return folder


def _router(folder: Path) -> tuple[Path, int, int]:
    """Return the file of layer 0's router, where it begins, and the bytes of a row."""
    ref = Checkpoint.open(folder).tensor("model.layers.0.mlp.gate.weight")
    return ref.path, ref.offset, ref.shape[1] * 2


@pytest.fixture(scope="module")
def golden(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    path = tmp_path_factory.mktemp("experts") / "g.h5"
    tokens = tuple(7 + 37 * i % 240 for i in range(12))
    selection = Selection(oracle="budget", logits="last")
    cases = [Case("a", (tokens,), decode=1, forced=((9,),))]
    opened = Checkpoint.open(checkpoint)
    record(Recording(opened, load_config(checkpoint), cases, "bfloat16", selection=selection), path)
    return open_golden(path)


def judged(golden: GoldenFile, checkpoint: Path, compute: Compute, mode: str, out: Path) -> Report:
    graph = choose_sublayers(golden, golden.config, None, fused=False)
    emulator = Emulator(golden, Checkpoint.open(checkpoint), "bfloat16")
    run = Otherwise(golden, graph, emulator, compute, fused=False).run(out, mode, "other")
    return compare(golden, run, default_policy())


def least_likely(call: Call) -> Tensor | None:
    """In one token take the least likely instead of the second."""
    if call.kind != "route":
        return None
    (logits,) = call.inputs
    changed = logits.clone()
    changed[0, 0, logits[0, 0].argmin()] = logits[0, 0].max()
    return call.run(changed)


@pytest.mark.parametrize("mode", ["op+sublayer", "sublayer", "chain"])
def test_a_tie_may_go_either_way(
    mode: str, golden: GoldenFile, checkpoint: Path, tmp_path: Path
) -> None:
    name = "cases/a/steps/00/layers/00/mlp/router_logits"
    logits = golden.map(name).astype(np.float32)
    assert (logits[..., TWINS[0]] == logits[..., TWINS[1]]).all()
    report = judged(golden, checkpoint, swap_twins, mode, tmp_path / "r.h5")
    assert [t.name for t in report.compared if not t.ok] == []
    routing = [t for t in report.tensors if t.tap == "routing"]
    assert sum(t.other_choice_rows for t in report.tensors) > 0
    first = [t for t in routing if t.sublayer == "cases/a/steps/00/layers/00/mlp"]
    assert [t.other_choice_rows for t in first] == [0] * len(first)
    assert report.ok


def swap_twins(call: Call) -> Tensor | None:
    """Where one of two experts with one logit is chosen, choose the other."""
    if call.kind != "route":
        return None
    routing = call.run()
    first, second = (routing[..., number].clone() for number in TWINS)
    tied = call.inputs[0][..., TWINS[0]] == call.inputs[0][..., TWINS[1]]
    routing[..., TWINS[0]] = torch.where(tied, second, first)
    routing[..., TWINS[1]] = torch.where(tied, first, second)
    return routing


@pytest.mark.parametrize("mode", ["op+sublayer", "chain"])
def test_another_choice_fails(
    mode: str, golden: GoldenFile, checkpoint: Path, tmp_path: Path
) -> None:
    report = judged(golden, checkpoint, least_likely, mode, tmp_path / "r.h5")
    wrong = [t for t in report.tensors if not t.ok]
    assert (wrong[0].sublayer, wrong[0].tap) == ("cases/a/steps/00/layers/00/mlp", "routing")
