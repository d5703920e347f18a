"""Checkpoints whose files name, spread or lack tensors in unusual ways, against transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from outside import disagreeing, load_outside, outside_truth, recorded
from safetensors.torch import load_file, save_file
from torch import Tensor

from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.shards import INDEX
from goldenctl.model.synth import synth

Weights = dict[str, Tensor]
IDS = ((3, 1, 4, 1, 5),)
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module", params=["tied", "untied"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with the usual names, float16 and bfloat16 mixed; not to be changed."""
    folder = synth("tiny", tmp_path_factory.mktemp("named") / request.param)
    edit(folder / "config.json", tie_word_embeddings=request.param == "tied")
    weights = load_file(folder / "model.safetensors")
    if request.param == "tied":
        del weights[HEAD]
    for name in list(weights)[::3]:
        weights[name] = weights[name].half()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewritten(original: Path, out: Path, change: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(original, out)
    weights = change(load_file(out / "model.safetensors"))
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def renamed(rename: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {rename(name): value for name, value in weights.items()}


def flat(name: str) -> str:
    return name.removeprefix("model.")


def some_flat(name: str) -> str:
    return flat(name) if ".2." in name or "norm" in name else name


def head_under_model(name: str) -> str:
    return f"model.{name}" if name == HEAD else name


def only_head(weights: Weights) -> Weights:
    weights.setdefault(HEAD, weights[EMBEDDING])
    return {n: v for n, v in weights.items() if n != EMBEDDING}


def assert_as_transformers(folder: Path, golden_path: Path) -> None:
    golden = recorded(folder, [Case("a", IDS)], golden_path, "bfloat16")
    truth = outside_truth(load_outside(folder, torch.bfloat16), IDS)
    step = "cases/a/steps/00"
    taps = {name: v for name, v in truth.items() if name[-4:] not in ("/cos", "/sin")}
    found = {f"{step}/{name}": value for name, value in taps.items()}
    assert disagreeing(golden, found) == []
    assert len(found) > 80


@pytest.mark.parametrize("rename", [str, flat, some_flat, head_under_model])
def test_names_that_transformers_takes(
    original: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    folder = rewritten(original, tmp_path / "model", renamed(rename))
    assert_as_transformers(folder, tmp_path / "g.h5")
    assert Checkpoint.open(folder).fingerprint() == Checkpoint.open(original).fingerprint()


@pytest.mark.parametrize("original", ["tied"], indirect=True)
@pytest.mark.parametrize("rename", [str, flat, head_under_model])
def test_only_the_tied_head_is_stored(
    original: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    folder = rewritten(original, tmp_path / "model", lambda w: renamed(rename)(only_head(w)))
    assert_as_transformers(folder, tmp_path / "g.h5")
    assert Checkpoint.open(folder).fingerprint() == Checkpoint.open(original).fingerprint()


@pytest.mark.parametrize("original", ["tied"], indirect=True)
@pytest.mark.parametrize("rename", [str, head_under_model])
def test_a_tied_head_with_other_values_is_read(
    original: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    def with_head(weights: Weights) -> Weights:
        return renamed(rename)({**weights, HEAD: weights[EMBEDDING] * 2})

    folder = rewritten(original, tmp_path / "model", with_head)
    assert_as_transformers(folder, tmp_path / "g.h5")
    assert Checkpoint.open(folder).untied


@pytest.mark.parametrize("original", ["untied"], indirect=True)
def test_float64_weights_are_rounded_once(original: Path, tmp_path: Path) -> None:
    """Just above what float32 would round to a tie of bfloat16."""

    def finer(weights: Weights) -> Weights:
        return {n: w.bfloat16().double() * (1 + 2**-9 + 2**-40) for n, w in weights.items()}

    folder = rewritten(original, tmp_path / "model", finer)
    edit(folder / "config.json", dtype="float64", torch_dtype="float64")
    assert_as_transformers(folder, tmp_path / "g.h5")


PREFIXED = {
    "twice": lambda name: f"model.{name}" if name.startswith("model.") else name,
    "all twice": lambda name: f"model.{name}",
    "data parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "compiled and parallel": lambda name: f"module._orig_mod.{name}",
    "compiled layers": lambda name: name.replace(".self_attn.", ".self_attn._orig_mod."),
    "peft": lambda name: f"base_model.model.{name}",
    "language model": lambda name: f"language_model.{name}",
    "inner language model": lambda name: name.replace("model.", "model.language_model.", 1),
    "flat behind a prefix": lambda name: f"transformer.{flat(name)}",
}


@pytest.mark.parametrize("rename", PREFIXED.values(), ids=PREFIXED.keys())
def test_prefixes_that_are_unambiguous(
    original: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    folder = rewritten(original, tmp_path / "model", renamed(rename))
    checkpoint, usual = Checkpoint.open(folder), Checkpoint.open(original)
    assert checkpoint.check_against(load_config(folder)) == ()
    assert set(checkpoint.names()) == set(usual.names())
    assert checkpoint.fingerprint() == usual.fingerprint()
    for name in usual.names():
        assert checkpoint.map(name).tobytes() == usual.map(name).tobytes()


def scattered(weights: Weights, folder: Path, paths: list[str]) -> dict[str, str]:
    """Write the weights to the files in turn; return the index's map."""
    (folder / "model.safetensors").unlink()
    parts: dict[str, Weights] = {path: {} for path in paths}
    for number, (name, value) in enumerate(weights.items()):
        parts[paths[number % len(paths)]][name] = value
    for path, part in parts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        save_file(part, folder / path, metadata={"format": "pt"})
    return {name: path for path, part in parts.items() for name in part}


def shuffled(index: dict[str, str]) -> dict[str, str]:
    return dict(zip(index, reversed(index.values()), strict=True))


INDEXES = {
    "as it is": lambda index: index,
    "tensors elsewhere": shuffled,
    "a tensor that is nowhere": lambda index: {**index, "x.weight": next(iter(index.values()))},
    "few tensors": lambda index: {path: path for path in index.values()},
    "with a dot": lambda index: {name: f"./{path}" for name, path in index.items()},
}


@pytest.mark.parametrize("original", ["untied"], indirect=True)
@pytest.mark.parametrize("paths", [["a", "b"], ["shards/a", "b", "deep/c"]], ids=["flat", "deep"])
@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES.keys())
def test_indexes(
    original: Path,
    tmp_path: Path,
    paths: list[str],
    change: Callable[[dict[str, str]], dict[str, str]],
) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "model"))
    files = [f"{path}.safetensors" for path in paths]
    index = scattered(load_file(folder / "model.safetensors"), folder, files)
    save_file({}, folder / "empty.safetensors")
    index = {**change(index), "nothing": "empty.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert_as_transformers(folder, tmp_path / "g.h5")
    assert Checkpoint.open(folder).fingerprint() == Checkpoint.open(original).fingerprint()


def test_what_the_model_does_not_have_is_ignored_as_transformers_does(
    original: Path, tmp_path: Path
) -> None:
    extra = {
        "model.layers.1.self_attn.q_proj.bias": torch.ones(64),
        "model.layers.4.mlp.up_proj.weight": torch.ones(3),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "score.weight": torch.ones(2, 64),
    }
    folder = rewritten(original, tmp_path / "model", lambda weights: {**weights, **extra})
    assert_as_transformers(folder, tmp_path / "g.h5")
    assert set(Checkpoint.open(folder).check_against(load_config(folder))) == set(extra)
