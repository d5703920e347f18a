"""Checkpoints: which files are read, what does not fit, mapping and fingerprints."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.model import fingerprint, safetensors_write
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.safetensors_header import read_header
from goldenctl.model.synth import synth

NORM = "model.norm.weight"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkpoint of several shards."""
    monkeypatch.setattr(safetensors_write, "SHARD_BYTES", 200_000)
    return synth("tiny", tmp_path / "sharded")


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _flip(folder: Path, name: str) -> None:
    """Change one bit of a tensor in place."""
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(read_header(path)[name].offset)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def _rewrite(folder: Path, **tensors: Any) -> None:
    """Write the checkpoint again with some tensors replaced, added, or (None) left out."""
    files = pytest.importorskip("safetensors.numpy")
    path = folder / "model.safetensors"
    old = files.load_file(path)
    new = {name.replace("__", "."): values for name, values in tensors.items()}
    files.save_file({k: v for k, v in {**old, **new}.items() if v is not None}, path)


def test_maps_the_bytes_read_only(tiny: Path) -> None:
    with Checkpoint.open(tiny) as checkpoint:
        ref = checkpoint.tensor(NORM)
        view = checkpoint.map(NORM)
        assert (ref.dtype, ref.shape) == ("bfloat16", (64,))
        assert view.dtype == ml_dtypes.bfloat16
        assert view.tobytes() == ref.path.read_bytes()[ref.offset : ref.offset + 128]
        before = view.tobytes()
        checkpoint.drop(NORM)
        assert view.tobytes() == before
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
    assert view.tobytes() == before


def test_unknown_name(tiny: Path) -> None:
    with pytest.raises(DamagedError, match='there is no tensor "x"'):
        Checkpoint.open(tiny).tensor("x")


def test_single_file_of_another_name_and_symlinks(tiny: Path, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "weights.safetensors").symlink_to(tiny / "model.safetensors")
    assert Checkpoint.open(copy).fingerprint() == Checkpoint.open(tiny).fingerprint()


def test_two_files_without_index(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "a.safetensors")
    (copy / "b.safetensors").write_bytes(b"")
    with pytest.raises(
        MissingError, match=r"has 2 \*.safetensors files but no model.safetensors.i"
    ):
        Checkpoint.open(copy)


def test_no_weights_and_no_folder(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"there is no \*.safetensors file"):
        Checkpoint.open(copy)
    with pytest.raises(MissingError, match="there is no such folder"):
        Checkpoint.open(copy / "x")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "expected an object weight_map"),
        ([], "expected an object weight_map"),
        ({NORM: "../a.safetensors"}, "is a path that may lead out of the folder"),
        ({NORM: "a/../../b.safetensors"}, "is a path that may lead out of the folder"),
        ({NORM: "/etc/a.safetensors"}, "is a path that may lead out of the folder"),
        ({NORM: "..\\a.safetensors"}, "is a path that may lead out of the folder"),
        ({NORM: "a\n.safetensors"}, "is a path that may lead out of the folder"),
        ({NORM: "passwd"}, '"passwd" is not the name of a safetensors file'),
        ({NORM: 3}, "3 is not the name of a safetensors file"),
    ],
)
def test_hostile_index(sharded: Path, weight_map: Any, message: str) -> None:
    assert (sharded / "model-00001-of-00003.safetensors").exists()
    _edit(sharded / "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(DamagedError, match=message):
        Checkpoint.open(sharded)


def test_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    said = "00002-of-00003.safetensors: is not there, but model.safetensors.index.json names it"
    with pytest.raises(MissingError, match=f"{said}; no other file has model.layers"):
        Checkpoint.open(sharded)


def test_an_absent_shard_that_held_nothing_of_the_model(sharded: Path) -> None:
    before = Checkpoint.open(sharded).fingerprint()
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    _edit(index, weight_map={**weight_map, "old": "gone.safetensors"})
    checkpoint = Checkpoint.open(sharded)
    assert checkpoint.check_against(checkpoint.config) == ()
    assert checkpoint.fingerprint() == before


def test_a_whole_series_needs_no_index(sharded: Path) -> None:
    before = Checkpoint.open(sharded).fingerprint()
    (sharded / "model.safetensors.index.json").unlink()
    assert Checkpoint.open(sharded).fingerprint() == before
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingError, match=r"has 2 .*: model-00001-of-00003.safetensors, model-"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize("same", [True, False])
def test_a_tensor_that_two_shards_hold(sharded: Path, same: bool) -> None:
    files = pytest.importorskip("safetensors.numpy")
    before = Checkpoint.open(sharded).fingerprint()
    values = np.array(Checkpoint.open(sharded).map(NORM))
    values[0] += 0 if same else 1
    path = sharded / "model-00001-of-00003.safetensors"
    assert NORM not in read_header(path)
    files.save_file({**files.load_file(path), NORM: values}, path)
    if same:
        assert Checkpoint.open(sharded).fingerprint() == before
        return
    with pytest.raises(
        DamagedError, match=r'norm.weight" differs between model-00001-of-00003.saf'
    ):
        Checkpoint.open(sharded)


def test_file_that_changes_size_after_open(copy: Path) -> None:
    checkpoint = Checkpoint.open(copy)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DamagedError, match="the file is being changed"):
        checkpoint.map(NORM)


def test_missing_and_misshapen_weights_are_listed(copy: Path) -> None:
    _rewrite(copy, model__norm__weight=None, lm_head__weight=np.zeros((3, 64), np.float32))
    checkpoint = Checkpoint.open(copy)
    with pytest.raises(DamagedError) as caught:
        checkpoint.check_against(checkpoint.config)
    assert str(caught.value) == (
        f"{copy}: the weights do not fit config.json: model.norm.weight [64] is missing; "
        "lm_head.weight is [3, 64], expected [512, 64]"
    )


def test_many_problems_are_counted(copy: Path) -> None:
    _edit(copy / "config.json", hidden_size=128)
    checkpoint = Checkpoint.open(copy)
    with pytest.raises(DamagedError, match=r"; and \d+ more; -v lists them all$"):
        checkpoint.check_against(checkpoint.config)
    with pytest.raises(DamagedError) as caught:
        checkpoint.check_against(checkpoint.config, verbose=True)
    assert "model.layers.0-3.mlp.up_proj.weight is [" in str(caught.value)
    assert " more" not in str(caught.value)


def test_a_refusal_names_what_is_there(copy: Path) -> None:
    files = pytest.importorskip("safetensors.numpy")
    path = copy / "model.safetensors"
    weights = files.load_file(path)
    fused = {n: v for n, v in weights.items() if not n.endswith(("q_proj.weight", "v_proj.weight"))}
    fused = {n.replace("k_proj", "qkv_proj"): v for n, v in fused.items()}
    files.save_file({**fused, "model.layers.1.self_attn.q_proj.weight": np.zeros(3)}, path)
    checkpoint = Checkpoint.open(copy)
    with pytest.raises(DamagedError) as caught:
        checkpoint.check_against(checkpoint.config)
    assert str(caught.value) == (
        f"{copy}: the weights do not fit config.json: "
        "model.layers.0,2-3.self_attn.q_proj.weight [128, 64] is missing; "
        "model.layers.0-3.self_attn.k_proj.weight [64, 64] is missing; "
        "model.layers.0-3.self_attn.v_proj.weight [64, 64] is missing; and 1 more; "
        "names that are there: model.layers.0-3.self_attn.qkv_proj.weight; -v lists them all"
    )


def test_no_head_where_none_is_read(copy: Path) -> None:
    _rewrite(copy, lm_head__weight=None)
    checkpoint = Checkpoint.open(copy)
    body = [name for name in checkpoint.names() if name.startswith("model.")]
    assert checkpoint.check_against(checkpoint.config, read=body) == ()
    with pytest.raises(DamagedError, match=r"lm_head.weight \[512, 64\] is missing; --logits none"):
        checkpoint.check_against(checkpoint.config)


def test_unmerged_adapters_are_refused(copy: Path) -> None:
    _rewrite(copy, model__layers__0__self_attn__q_proj__lora_A__weight=np.zeros((4, 64), "f4"))
    checkpoint = Checkpoint.open(copy)
    with pytest.raises(UsageError, match=r"lora_A.weight is an adapter's; merge the adapter"):
        checkpoint.check_against(checkpoint.config)


def test_two_models_under_two_prefixes_are_ambiguous(copy: Path) -> None:
    files = pytest.importorskip("safetensors.numpy")
    path = copy / "model.safetensors"
    weights = files.load_file(path)
    both = {f"{who}.{n}": v for who in ("student", "teacher") for n, v in weights.items()}
    files.save_file(both, path)
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.renamed == {}
    with pytest.raises(DamagedError, match=r"names that are there: student.lm_head.weight, stud"):
        checkpoint.check_against(checkpoint.config)
    files.save_file(both | {"student.model.norm.weight": np.zeros(3, "f4")}, path)
    assert Checkpoint.open(copy).renamed["teacher.lm_head.weight"] == "lm_head.weight"


def test_unused_tensors_are_named(copy: Path) -> None:
    _rewrite(copy, rotary=np.zeros(3, np.int64))
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.check_against(checkpoint.config) == ("rotary",)
    with pytest.raises(UsageError, match='tensor "rotary" has dtype I64, which is not supported'):
        checkpoint.tensor("rotary")


def test_stored_frequencies_that_nothing_reads_are_let_be(copy: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _rewrite(copy, **{name.replace(".", "__"): np.zeros(3, "f4")})
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.check_against(checkpoint.config) == (name,)


def test_tied_embeddings_with_an_lm_head(copy: Path) -> None:
    _edit(copy / "config.json", tie_word_embeddings=True)
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.untied
    assert not checkpoint.config.tie_word_embeddings
    assert checkpoint.check_against(checkpoint.config) == ()
    table = np.array(checkpoint.map("model.embed_tokens.weight"))
    _rewrite(copy, lm_head__weight=table)
    checkpoint = Checkpoint.open(copy)
    assert not checkpoint.untied
    assert checkpoint.check_against(checkpoint.config) == ("lm_head.weight",)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model.embed_tokens.weight", "embed_tokens.weight"),
        ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("lm_head.weight", "model.lm_head.weight"),
    ],
)
def test_a_parameter_under_two_names(copy: Path, name: str, other: str) -> None:
    values = np.array(Checkpoint.open(copy).map(name))
    _rewrite(copy, **{other.replace(".", "__"): values})
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.check_against(checkpoint.config) == (other,)
    values[0, 0] += 1
    _rewrite(copy, **{other.replace(".", "__"): values})
    checkpoint = Checkpoint.open(copy)
    with pytest.raises(UsageError, match=f"{other} differs from {name}, and both name one param"):
        checkpoint.check_against(checkpoint.config)


def test_fingerprint_depends_on_content_and_config(tiny: Path, copy: Path) -> None:
    original = Checkpoint.open(tiny).fingerprint()
    assert original.startswith("sha256:")
    assert Checkpoint.open(copy).fingerprint() == original
    _edit(copy / "config.json", use_cache=False)
    assert Checkpoint.open(copy).fingerprint() == original
    _flip(copy, NORM)
    flipped = Checkpoint.open(copy).fingerprint()
    assert flipped != original
    _edit(copy / "config.json", rms_norm_eps=1e-5)
    assert Checkpoint.open(copy).fingerprint() not in (original, flipped)


def test_digests_are_cached_until_the_file_changes(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "RACY_S", -1.0)
    first = Checkpoint.open(copy).fingerprint()
    cache = fingerprint.cache_path()
    assert list(json.loads(cache.read_text())) == [str(copy / "model.safetensors")]
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "_hash_tensors", None)  # not called
        assert Checkpoint.open(copy).fingerprint() == first
    stat = (copy / "model.safetensors").stat()
    _flip(copy, NORM)
    os.utime(copy / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Checkpoint.open(copy).fingerprint() != first
    assert [path.name for path in cache.parent.iterdir()] == ["fingerprints.json"]


def test_recent_files_are_not_cached(copy: Path) -> None:
    (copy / "model.safetensors").touch()
    Checkpoint.open(copy).fingerprint()
    assert not fingerprint.cache_path().exists()


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"a', '{"%s": 3}', '{"%s": {"stamp": [], "tensors": []}}']
)
def test_damaged_cache_is_ignored(damage: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Checkpoint.open(copy).fingerprint()
    monkeypatch.setattr(fingerprint, "RACY_S", -1.0)
    cache = fingerprint.cache_path()
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(damage.replace("%s", str(copy / "model.safetensors")))
    assert Checkpoint.open(copy).fingerprint() == first


def test_unwritable_cache_is_no_obstacle(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "RACY_S", -1.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "file" / "sub"))
    assert Checkpoint.open(copy).fingerprint().startswith("sha256:")
