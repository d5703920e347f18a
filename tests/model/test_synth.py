"""Synthetic checkpoints: bits, shapes, traits, and what transformers makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError
from goldenctl.families import PRESETS
from goldenctl.model import safetensors_write
from goldenctl.model.byte_tokenizer import byte_tokenizer
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config, preset_config
from goldenctl.model.names import parameter_shapes
from goldenctl.model.synth import synth, tensor_chunks

TINY = [name for name in PRESETS if name.endswith("tiny")]


def test_bits_never_change(tiny: Path) -> None:
    """Another fingerprint breaks goldens that others have recorded: bump the seed's prefix."""
    with Checkpoint.open(tiny) as checkpoint:
        digest = checkpoint.fingerprint().removeprefix("sha256:")
    assert digest == "a7667f15c7cace91889420ac7c223c06865741cd3ecdd14539837d56e7ab350e"


@pytest.mark.parametrize("preset", TINY)
def test_loads_in_transformers_and_stays_finite(preset: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = synth(preset, tmp_path / preset)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    logits = model(torch.arange(32)[None]).logits
    assert 0.3 < float(logits.detach().std()) < 30.0
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.check_against(load_config(folder)) == ()


def test_traits_of_trained_weights(tiny: Path) -> None:
    with Checkpoint.open(tiny) as checkpoint:
        up = checkpoint.map("model.layers.0.mlp.up_proj.weight").astype(np.float32)
        norm = checkpoint.map("model.norm.weight").astype(np.float32)
        table = checkpoint.map("model.embed_tokens.weight").astype(np.float32)
    assert abs(up.std() * 8.0 - 1.0) < 0.05  # 1 / sqrt(64)
    assert abs(up.mean()) < 0.01
    assert 0.8 < float(np.median(norm)) < 1.2
    spread = table.std(axis=0)
    assert spread.max() > 6 * np.median(spread)


def test_biases_are_not_zero(tmp_path: Path) -> None:
    folder = synth("llama-bias-tiny", tmp_path / "out")
    with Checkpoint.open(folder) as checkpoint:
        biases = [name for name in checkpoint.names() if name.endswith(".bias")]
        assert len(biases) == 4 * 7
        assert all(np.count_nonzero(checkpoint.map(name)) > 16 for name in biases)


def test_seed_changes_every_tensor(tmp_path: Path, tiny: Path) -> None:
    with Checkpoint.open(tiny) as a, Checkpoint.open(synth("tiny", tmp_path / "b", 1)) as b:
        for name in a.names():
            assert a.map(name).tobytes() != b.map(name).tobytes(), name


def test_chunks_do_not_change_values(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset_config("tiny")
    name = "model.layers.1.mlp.down_proj.weight"
    shape = parameter_shapes(config)[name]

    def values() -> bytes:
        chunks = tensor_chunks(config, name, shape, seed=0, dtype=DTYPES["bfloat16"])
        return b"".join(chunk.tobytes() for chunk in chunks)

    whole = values()
    monkeypatch.setattr("goldenctl.model.synth.CHUNK_ELEMENTS", 500)
    assert values() == whole


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_sharded_is_the_same_model(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = synth("tiny", tmp_path / "one", dtype=dtype)
    monkeypatch.setattr(safetensors_write, "SHARD_BYTES", 200_000)
    many = synth("tiny", tmp_path / "many", dtype=dtype)
    assert len(list(many.glob("model-*.safetensors"))) > 2
    with Checkpoint.open(one) as a, Checkpoint.open(many) as b:
        assert a.tensor("model.norm.weight").dtype == dtype
        assert a.fingerprint() == b.fingerprint()


def test_safetensors_package_reads_it(tiny: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    folder = tiny / "model.safetensors"
    with Checkpoint.open(tiny) as checkpoint:
        theirs = numpy_files.load_file(folder)
        assert theirs.keys() == set(checkpoint.names())
        for name, values in theirs.items():
            assert values.tobytes() == checkpoint.map(name).tobytes()
        assert checkpoint.tensor("model.embed_tokens.weight").offset % 64 == 0


def test_tokenizer_round_trips(tiny: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    for text in (
        "Hello, this is a test input",
        "é漢\n\x00\t  x",
        "",
        "".join(map(chr, range(300))),
    ):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.get_vocab_size() <= 512
    ids = byte_tokenizer()["model"]["vocab"]
    assert sorted(ids.values()) == list(range(len(ids)))


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    synth("tiny", tmp_path / "out", progress=lambda *event: seen.append(event))
    assert len(seen) == len(parameter_shapes(preset_config("tiny")))
    assert seen[-1][1] == seen[-1][2]


def test_used_folder_is_refused_and_empty_one_filled(tmp_path: Path) -> None:
    synth("tiny", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    synth("tiny", tmp_path / "empty")
    with pytest.raises(UsageError, match="exists already"):
        synth("tiny", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out"]


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth("tiny", tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, "preset 'huge': there is none of that name; there are gemma3-tiny, "),
        ({"dtype": "int8"}, "dtype 'int8': expected one of bfloat16, float16, float32"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    call: dict[str, object] = {"preset": "tiny", "out": tmp_path / "out", **arguments}
    with pytest.raises(UsageError) as caught:
        synth(**call)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_config_is_readable_json(tiny: Path) -> None:
    data = json.loads((tiny / "config.json").read_text())
    assert data["model_type"] == "qwen3"
    assert data["torch_dtype"] == data["dtype"] == "bfloat16"
