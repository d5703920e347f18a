"""What a recording holds, that its bytes are those computed, and what happens when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from goldenctl.digests import of_bytes
from goldenctl.errors import MissingError, UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.synth import synth
from goldenctl.reference import forward
from goldenctl.reference.device import check_device
from goldenctl.reference.record import Recording, record
from goldenctl.reference.sink import TensorSink

FIVE = Case("five", ((1, 2, 3, 4, 5),))
PAIR = Case("pair", ((7, 8, 9), (10, 11, 12)), "text")
CASES = (FIVE, PAIR, Case("one", ((500,),)))
STEP = "cases/five/steps/00"
ATTENTION = (
    "input input_layernorm q_proj k_proj v_proj q_norm k_norm q_rope k_rope scores probs context "
    "o_proj output key value"
)
MLP = "input post_attention_layernorm gate_proj up_proj swiglu down_proj output"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth("tiny", tmp_path_factory.mktemp("record") / "tiny", 3)


@pytest.fixture
def recording(checkpoint: Path) -> Recording:
    return Recording(Checkpoint.open(checkpoint), load_config(checkpoint), CASES)


def made(recording: Recording, path: Path, **changes: Any) -> GoldenFile:
    record(replace(recording, **changes), path)
    return open_golden(path, kind="golden")


def sublayers(golden: GoldenFile, case: str = "five") -> list[str]:
    root = f"cases/{case}/steps/00/"
    return [name.removeprefix(root) for name in golden.sublayers if name.startswith(root)]


def names(golden: GoldenFile, group: str) -> set[str]:
    every = (*golden.tensors, *golden.aliases)
    return {name.rpartition("/")[2] for name in every if name.rpartition("/")[0] == group}


def same_bytes(one: GoldenFile, two: GoldenFile, name: str) -> bool:
    return bool(one.map(name).tobytes() == two.map(name).tobytes())


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    path = tmp_path_factory.mktemp("whole") / "g.h5"
    return made(Recording(Checkpoint.open(checkpoint), load_config(checkpoint), CASES), path)


def test_every_sublayer_and_tap_of_every_case(whole: GoldenFile) -> None:
    layers = [f"layers/{i:02d}/{part}" for i in range(4) for part in ("attention", "mlp")]
    for case in CASES:
        assert sublayers(whole, case.name) == ["embedding", *layers, "final_norm", "lm_head"]
        root = f"cases/{case.name}/steps/00"
        assert names(whole, f"{root}/layers/03/attention") == set(ATTENTION.split())
        assert names(whole, f"{root}/layers/03/mlp") == set(MLP.split())
        assert whole.map(f"cases/{case.name}/token_ids").tolist() == [*map(list, case.token_ids)]
        positions = [list(range(len(row))) for row in case.token_ids]
        assert whole.map(f"{root}/position_ids").tolist() == positions


def test_shapes_follow_the_batch(whole: GoldenFile) -> None:
    attention = "cases/pair/steps/00/layers/00/attention"
    assert whole.info(f"{attention}/q_proj").shape == (2, 3, 4, 32)
    assert whole.info(f"{attention}/key").shape == (2, 3, 2, 32)
    assert whole.info(f"{attention}/scores").shape == (2, 4, 3, 3)
    assert whole.info("cases/pair/steps/00/lm_head/output").shape == (2, 1, 512)
    assert whole.info("constants/rope_cos").shape == (5, 16)


def test_inputs_are_links_to_the_outputs_before(whole: GoldenFile) -> None:
    links = {name.removeprefix(f"{STEP}/"): own for name, own in whole.aliases.items()}
    assert links["embedding/input"] == "cases/five/token_ids"
    assert links["layers/00/attention/input"] == f"{STEP}/embedding/output"
    assert links["layers/01/mlp/input"] == f"{STEP}/layers/01/attention/output"
    assert links["lm_head/input"] == f"{STEP}/final_norm/output"
    assert links["layers/02/attention/key"] == f"{STEP}/layers/02/attention/k_rope"
    assert links["layers/02/attention/value"] == f"{STEP}/layers/02/attention/v_proj"


def test_digests_are_of_the_bytes(whole: GoldenFile) -> None:
    assert len(whole.tensors) > 200
    for name, info in whole.tensors.items():
        assert info.digest == of_bytes(whole.map(name).tobytes()), name


def test_a_second_recording_has_the_same_bytes(
    whole: GoldenFile, recording: Recording, tmp_path: Path
) -> None:
    assert made(recording, tmp_path / "g.h5").content_digest == whole.content_digest


def test_times_are_of_ops_and_sum_up(whole: GoldenFile) -> None:
    group = f"{STEP}/layers/01/mlp"
    taps = [info for info in whole.tensors.values() if info.name.startswith(f"{group}/")]
    assert len(taps) == 6
    assert all(info.time_ns > 0 for info in taps)
    assert whole.sublayers[group].time_ns == sum(info.time_ns for info in taps)


def test_the_recipe_says_how_to_do_it_again(whole: GoldenFile, recording: Recording) -> None:
    recipe = whole.recipe
    assert recipe["model"]["fingerprint"] == recording.checkpoint.fingerprint()
    assert recipe["model"]["config"] == recording.config.to_dict()
    assert recipe["cases"][1] == {"name": "pair", "text": "text"}
    assert recipe["reference"]["torch"] == torch.__version__
    assert (recipe["dtype"], recipe["layers"], recipe["logits"]) == ("float32", None, "last")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtype(recording: Recording, tmp_path: Path, dtype: str, whole: GoldenFile) -> None:
    golden = made(recording, tmp_path / "g.h5", dtype=dtype)
    kept = {info.dtype for name, info in golden.tensors.items() if not name.endswith("_ids")}
    assert kept == {dtype}
    logits = golden.map(f"{STEP}/lm_head/output").astype("f8").ravel()
    expected = whole.map(f"{STEP}/lm_head/output").astype("f8").ravel()
    error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
    bound = {"float32": 0.0, "float64": 1e-5, "float16": 0.02, "bfloat16": 0.1}[dtype]
    assert error <= bound
    assert (error > 0) == (dtype != "float32")


def test_layers_keep_what_the_whole_has(
    recording: Recording, tmp_path: Path, whole: GoldenFile
) -> None:
    golden = made(recording, tmp_path / "g.h5", selection=Selection(layers=frozenset({0, 2})))
    kept = [f"layers/{i:02d}/{part}" for i in (0, 2) for part in ("attention", "mlp")]
    assert sublayers(golden) == ["embedding", *kept, "final_norm", "lm_head"]
    assert (
        f"{STEP}/layers/02/attention/input" in golden.tensors
    )  # what it would link to is not kept
    assert golden.aliases[f"{STEP}/layers/02/mlp/input"] == f"{STEP}/layers/02/attention/output"
    for name in (*golden.tensors, *golden.aliases):
        assert same_bytes(golden, whole, name), name


def test_sublayer_taps_keep_boundaries_and_the_cache(
    recording: Recording, tmp_path: Path, whole: GoldenFile
) -> None:
    golden = made(recording, tmp_path / "g.h5", selection=Selection(taps="sublayer"))
    assert names(golden, f"{STEP}/layers/00/attention") == {"input", "output", "key", "value"}
    assert names(golden, f"{STEP}/layers/00/mlp") == {"input", "output"}
    for name in (*golden.tensors, *golden.aliases):
        assert same_bytes(golden, whole, name), name


@pytest.mark.parametrize("logits", ["all", "none"])
def test_logits(recording: Recording, tmp_path: Path, whole: GoldenFile, logits: str) -> None:
    golden = made(recording, tmp_path / "g.h5", selection=Selection(logits=logits))
    if logits == "none":
        assert sublayers(golden)[-1] == "final_norm"
        return
    every = golden.map("cases/pair/steps/00/lm_head/output")
    assert every.shape == (2, 3, 512)
    last = whole.map("cases/pair/steps/00/lm_head/output")
    np.testing.assert_allclose(every[:, -1:], last, rtol=1e-5, atol=1e-5)
    assert not np.allclose(every[:, 0], last[:, 0], atol=1e-2)


def test_without_logits_nothing_after_the_last_kept_layer_is_computed(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    selection = Selection(layers=frozenset({1}), logits="none")
    record(
        replace(recording, selection=selection),
        tmp_path / "g.h5",
        lambda _done, _all, name: seen.append(name),
    )
    assert seen[-1] == "layers.01.mlp"
    assert sublayers(open_golden(tmp_path / "g.h5"))[-1] == "layers/01/mlp"


@pytest.mark.parametrize("logits", ["last", "all"])
@pytest.mark.parametrize("rows", [1, 100, 511])
def test_sliced_logits_are_the_whole_product(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, logits: str
) -> None:
    monkeypatch.setattr(forward, "VOCAB_SLICE_ROWS", rows)
    golden = made(recording, tmp_path / "g.h5", selection=Selection(logits=logits))
    weight = recording.checkpoint.map("lm_head.weight").astype("f8")
    for case in CASES:
        root = f"cases/{case.name}/steps/00/lm_head"
        hidden = golden.map(f"{root}/input").astype("f8")
        expected = hidden[:, -1:] @ weight.T if logits == "last" else hidden @ weight.T
        np.testing.assert_allclose(golden.map(f"{root}/output"), expected, rtol=1e-4, atol=1e-5)
        info = golden.info(f"{root}/output")
        stored = golden.map(info.name).tobytes()
        assert info.digest == of_bytes(stored)


def test_one_sublayers_weights_at_a_time(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight read is let go before the next sublayer's are read."""
    mapped: set[str] = set()
    history: list[str] = []
    kept_map, kept_drop = Checkpoint.map, Checkpoint.drop

    def spy_map(self: Checkpoint, name: str) -> Any:
        mapped.add(name)
        prefixes = {".".join(each.split(".")[:3]) for each in mapped}
        assert len(prefixes) == 1, mapped
        return kept_map(self, name)

    def spy_drop(self: Checkpoint, name: str) -> None:
        mapped.discard(name)
        history.append(name)
        kept_drop(self, name)

    monkeypatch.setattr(Checkpoint, "map", spy_map)
    monkeypatch.setattr(Checkpoint, "drop", spy_drop)
    made(recording, tmp_path / "g.h5")
    assert mapped == set()
    assert set(history) == set(recording.checkpoint.names())


def test_a_failing_model_leaves_the_old_golden(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.h5"
    path.write_bytes(b"old")

    def interrupt(done: int, _all: int, _name: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(recording, path, interrupt)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_stops_the_recording(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("goldenctl.golden.stream._pwrite", full)
    with pytest.raises(UsageError, match=r"g\.h5: cannot be written: No space left on device"):
        record(recording, tmp_path / "g.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writing_thread_reaches_the_caller(
    recording: Recording, tmp_path: Path
) -> None:
    tensors = recording.layout().tensors
    writer = GoldenWriter(
        tmp_path / "g.h5", kind="golden", recipe={}, tensors=tensors, links={}, groups=[]
    )
    with TensorSink(lambda: writer, tensors) as sink:
        sink.put("not in the file", torch.zeros(3))
        sink.put("cases/one/token_ids", torch.zeros((1, 1), dtype=torch.int64))
        with pytest.raises(ValueError, match="cases/one/token_ids: 8 bytes, expected 4"):
            sink.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "error", "said"),
    [
        ("cuda:99", MissingError, "device cuda:99: torch .* sees [0-9]+ CUDA devices"),
        ("meta", UsageError, "expected cpu or cuda"),
        ("quantum", UsageError, "'quantum' is not known"),
    ],
)
def test_devices(device: str, error: type[Exception], said: str) -> None:
    check_device("cpu")
    with pytest.raises(error, match=said):
        check_device(device)


SCRIPT = (
    "import os, goldenctl.reference, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in "
    "sys.modules)"
)


@pytest.mark.parametrize(("wish", "left"), [(None, "None"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_unless_the_user_says_otherwise(wish: str | None, left: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": wish} if wish else {}
    environment["OMP_DISPLAY_ENV"] = "TRUE"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [left, "True"]
    policy = next(line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line)
    assert (wish or "PASSIVE") in policy
