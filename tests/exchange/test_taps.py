"""Tap files as dumps: what a PyTorch engine captured is imported and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import goldenctl
from goldenctl.cli import run
from goldenctl.errors import DamagedError
from goldenctl.exchange.dump import read_dump
from goldenctl.exchange.records import RecordWriter
from goldenctl.exchange.taps import read_taps

IDS = [5, 17, 2, 95]
HEADER = {"kind": "tap", "name": "x", "dtype": "float32", "shape": [2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden of a prompt and a decode step, and what transformers' model yields in both."""
    folder = tmp_path_factory.mktemp("taps")
    words = ["record", str(folder / "model"), str(folder / "golden.h5"), "--oracle"]
    assert run(["synth", "tiny", str(folder / "model")]) == 0
    assert run([*words, "--token-ids", ",".join(map(str, IDS)), "--decode", "1"]) == 0
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad(), goldenctl.capture(model, folder / "engine.taps", inputs=True):
        model.generate(torch.tensor([IDS]), max_new_tokens=2, do_sample=False)
    return folder


def judged(folder: Path, taps: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Import a tap file by the map that its own listing suggests; diff it."""
    golden, map_path, made = (
        folder / "golden.h5",
        taps.with_suffix(".toml"),
        taps.with_suffix(".h5"),
    )
    assert run(["import", str(taps), "--golden", str(golden), "--list"]) == 0
    map_path.write_text(capsys.readouterr().out)
    words = ["import", str(taps), str(made), "--map", str(map_path), "--golden", str(golden)]
    assert run(words) == 0
    return run(["diff", str(golden), str(made)])


def test_a_captured_model_passes_in_prefill_and_decode(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(folder, folder / "engine.taps", capsys) == 0
    said = capsys.readouterr().out
    assert "PASS" in said
    assert "tokens/01" in said


def test_the_suggested_map_finds_what_modules_are_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(folder / "golden.h5")
    assert run(["import", str(folder / "engine.taps"), "--golden", golden, "--list"]) == 0
    said = capsys.readouterr().out
    for name in ("self_attn.o_proj.input", "post_attention_layernorm.input", "down_proj.input"):
        assert f'.{name}#{{step}}"' in said


def test_a_wrong_tensor_of_a_decode_step_fails_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taps = tmp_path / "wrong.taps"
    with RecordWriter(taps) as writer:
        for name, tensor in read_taps(folder / "engine.taps").items():
            values = np.asarray(tensor.read())
            if name == "model.layers.2.mlp.up_proj#1":
                values = values * 1.5
            header = {**HEADER, "name": name.partition("#")[0]}
            shape = list(values.shape)
            header |= {"dtype": str(values.dtype), "shape": shape}
            writer.append(header, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    assert judged(folder, taps, capsys) == 1
    assert "layers.02.mlp.up_proj" in capsys.readouterr().out


def test_a_name_that_comes_again_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "x.taps"
    with RecordWriter(path) as writer:
        for name in ("once", "again", "again"):
            writer.append({**HEADER, "name": name}, np.zeros(2, np.float32).tobytes())
    assert list(read_dump(path)) == ["once", "again#0", "again#1"]


def test_what_a_crash_tore_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.taps"
    with RecordWriter(path) as writer:
        writer.append(HEADER, np.float32([1, 2]).tobytes())
        writer.append({**HEADER, "name": "y"}, np.float32([3, 4]).tobytes())
    path.write_bytes(path.read_bytes()[:-3])
    (tensor,) = read_taps(path).values()
    np.testing.assert_array_equal(tensor.read(), np.float32([1, 2]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [3]}, r"float32 \[3\] needs 12 bytes, it has 8"),
        ({"shape": [-1]}, "is not one of a tensor"),
        ({"shape": [1] * 9}, "is not one of a tensor"),
        ({"name": "a\nb"}, "unprintable"),
        ({"name": ""}, "empty"),
        ({"kind": "call"}, "it is not a tap"),
        ({"dtype": 3}, "not a tapped tensor"),
    ],
    ids=str,
)
def test_a_record_that_is_no_tensor_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "x.taps"
    with RecordWriter(path) as writer:
        writer.append({**HEADER, **change}, bytes(8))
    with pytest.raises(DamagedError, match=said):
        read_taps(path)


def test_a_dtype_that_is_not_known_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.taps"
    with RecordWriter(path) as writer:
        writer.append({**HEADER, "dtype": "complex64"}, bytes(16))
        writer.append({**HEADER, "name": "y"}, bytes(8))
    found = read_taps(path)
    assert found["x"].dtype == "complex64"
    np.testing.assert_array_equal(found["y"].read(), np.zeros(2, np.float32))
