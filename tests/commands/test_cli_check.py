"""``goldenctl check`` and ``attest``: what passes, what fails, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from goldenctl.golden.file import open_golden
from goldenctl.sets.manifest import dump_manifest, read_manifest
from goldenctl.studies import attestation as attest
from tests.commands.conftest import Call
from tests.commands.test_cli_imports import without


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, harness: Path) -> Path:
    """Return a folder with one golden set, ``tiny``, and a run of it; not to be changed."""
    from goldenctl.cli import run

    assert harness.exists()
    folder = tmp_path_factory.mktemp("check")
    sets = folder / "goldens"
    record = ["record", "synth:tiny?seed=0", "--name", "tiny", "--goldens", str(sets)]
    assert run([*record, "--random-tokens", "6", "--oracle"]) == 0
    assert run(["replay", str(sets / "tiny/v1.h5"), str(folder / "run.h5")]) == 0
    return folder


@pytest.fixture
def place(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, which is the current folder."""
    folder = tmp_path / "place"
    shutil.copytree(recorded, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def golden(place: Path) -> Path:
    return place / "goldens/tiny/v1.h5"


def steps(path: Path) -> list[tuple[str, str]]:
    content = json.loads(path.read_text())
    return [(step["step"], step["state"]) for step in content["checks"]]


def test_a_golden_that_is_here_is_hashed_and_replayed(call: Call, place: Path) -> None:
    ran = call("check", "--json", "out.json")
    assert ran.code == 0
    assert "✓ PASS  2 steps of 1 golden set" in ran.out
    assert "infinicore cpu, op+sublayer" in ran.out
    assert steps(place / "out.json") == [("integrity", "passed"), ("replay", "passed")]


def test_the_manifest_alone_judges_a_recording_and_its_replay(
    call: Call, place: Path, golden: Path
) -> None:
    golden.unlink()
    ran = call("check", "tiny", "--keep", "kept", "--json", "out.json")
    assert ran.code == 0, ran.out
    passed = [("integrity", "passed"), ("record", "passed"), ("replay", "passed")]
    assert steps(place / "out.json")[:3] == passed
    assert open_golden(place / "kept/tiny/golden.h5").kind == "golden"
    assert open_golden(place / "kept/tiny/run.h5").kind == "run"


def test_another_processor_is_judged_by_sketches_and_passes(place: Path, golden: Path) -> None:
    golden.unlink()
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "COLUMNS": "120"}
    ran = subprocess.run(
        [sys.executable, "-m", "goldenctl", "check"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "sketch" in ran.stdout
    assert ran.stdout.count("✓  tiny") == 4


def test_another_model_is_beyond_tolerance(call: Call, place: Path, golden: Path) -> None:
    """A manifest whose recipe was changed to another epsilon records something else."""
    path = golden.parent / "manifest.json"
    manifest = read_manifest(path)
    tokens = ((9, 8, 7, 6, 5, 4),)
    case = msgspec.structs.replace(manifest.recipe.cases[0], token_ids=tokens)
    recipe = msgspec.structs.replace(manifest.recipe, cases=(case,))
    path.write_bytes(dump_manifest(msgspec.structs.replace(manifest, recipe=recipe)))
    golden.unlink()
    ran = call("check", "--no-replay")
    assert ran.code == 1
    assert "first embedding.output: relative L2 about" in ran.out
    assert "✗ FAIL  1 of 1 golden set" in ran.out


def test_integrity_is_torch_free_and_takes_a_manifest_by_its_path(place: Path) -> None:
    ran = without(("torch", "transformers"), "check", "--integrity", "goldens/tiny/manifest.json")
    assert ran.returncode == 0, ran.stderr
    assert "166 digests" in ran.stdout


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 16
    path.write_bytes(data)


def test_one_flipped_bit_of_a_tensor_is_named(call: Call, golden: Path) -> None:
    info = next(i for i in open_golden(golden).tensors.values() if i.tap == "q_rope")
    flip(golden, info.offset + 5)
    ran = call("check")
    assert ran.code == 4
    assert f"{info.name} does not match its digest" in ran.out.replace("\n", "")


def test_a_flipped_bit_between_tensors_is_found(call: Call, golden: Path) -> None:
    flip(golden, golden.stat().st_size - 1)
    assert call("check", "--integrity").code == 4


def test_a_golden_of_other_content_is_refused(call: Call, place: Path, golden: Path) -> None:
    golden.unlink()
    assert call("record", "synth:tiny?seed=1", golden, "--random-tokens", "6", "--oracle").code == 0
    ran = call("check")
    assert ran.code == 4
    assert "its digest is not the manifest's" in ran.out.replace("\n", " ")


def test_a_damaged_manifest_is_refused(call: Call, golden: Path) -> None:
    path = golden.parent / "manifest.json"
    flip(path, path.read_bytes().index(b"projection") + 20)
    assert call("check", "--integrity").code == 4


def test_a_missing_golden_is_a_failure_with_the_command(call: Call, golden: Path) -> None:
    golden.unlink()
    ran = call("check", "--against", "golden")
    assert ran.code == 3
    said = " ".join(ran.out.split())
    assert "goldenctl pull tiny, or goldenctl record --from-manifest tiny" in said


def test_without_torch_a_manifest_alone_is_a_failure_with_the_command(golden: Path) -> None:
    golden.unlink()
    ran = without(("torch",), "check")
    assert ran.returncode == 3
    assert "pip install 'goldenctl[record]'" in " ".join(ran.stdout.split())


def test_without_infinicore_the_replay_is_a_failure(call: Call, place: Path) -> None:
    ran = call("check", "--infini-root", place / "none")
    assert ran.code == 3
    assert "replay" in ran.out


def test_a_moved_checkpoint_that_is_another_is_refused(
    call: Call, place: Path, golden: Path
) -> None:
    golden.unlink()
    ran = call("check", "--model-path", "synth:tiny?seed=1")
    assert ran.code == 4
    assert "is not the checkpoint that was recorded" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none",), 2, "there is no golden set of that name"),
        (("--device", "abacus"), 2, "device 'abacus' is not known"),
        (("--integrity", "--record"), 2, "--integrity: it computes nothing"),
        (("--goldens", "empty"), 3, "empty: there is no golden set in it"),
        (("--json", "none/x.json"), 2, "folder none does not exist"),
        (("--tolerance", "none"), 2, "there is no such file"),
        (("--attestation", "none.json"), 2, "none.json: there is no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_calls(
    call: Call, place: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = call("check", *arguments)
    assert ran.code == code
    assert said in ran.line


def test_an_attestation_is_judged_again_without_the_golden(
    call: Call, place: Path, golden: Path
) -> None:
    ran = call("attest", "run.h5")
    assert ran.code == 0
    assert "judged by their tensors, against tiny@v1" in ran.out
    golden.unlink()
    file = "run.h5.attestation.json"
    assert (place / file).stat().st_size < 120_000
    ran = call("check", "--attestation", file)
    assert ran.code == 0
    assert "infinicore on cpu passed" in ran.out
    assert "✓ PASS  99 tensors" in ran.out
    assert "judged by their sketches" in call("attest", "run.h5", "--output", "b.json").out
    assert call("attest", "run.h5", "--output", "b.json").code == 0  # over its own kind
    manifest = (place / "goldens/tiny/manifest.json").read_bytes()
    ran = call("attest", "run.h5", "--output", "goldens/tiny/manifest.json")
    assert (ran.code, "is not an attestation" in ran.line) == (2, True)
    assert (place / "goldens/tiny/manifest.json").read_bytes() == manifest


def test_rows_of_padding_decide_nothing_for_sketches_either(call: Call, place: Path) -> None:
    rows = ("--batch", "--token-ids", "5,6,7,8,9", "--token-ids", "11,12")
    assert call("record", "synth:tiny?seed=0", "--name", "batch", *rows, "--oracle").code == 0
    golden = place / "goldens/batch/v1.h5"
    assert call("replay", golden, "batch.h5", "--mode", "op").code == 0
    golden.unlink()
    ran = call("attest", "batch.h5", "--name", "batch")
    assert ran.code == 0, ran.out
    assert "rows of padding" in ran.out
    assert call("check", "--attestation", "batch.h5.attestation.json").code == 0


def test_an_attestation_of_a_wrong_run_fails_here_too(call: Call, place: Path) -> None:
    inject = ("--inject", "zero_row@layers.01.mlp.up_proj")
    assert call("replay", "goldens/tiny/v1.h5", "bad.h5", *inject).code == 0
    assert call("attest", "bad.h5", "--output", "bad.json").code == 1
    ran = call("check", "--attestation", "bad.json")
    assert ran.code == 1
    assert "first wrong: layers.01.mlp.up_proj" in ran.out


def reworded(path: Path, **changes: Any) -> None:
    """Change an attestation and give it a digest that fits."""
    attestation = attest.load(path)
    path.write_bytes(attest.dump(msgspec.structs.replace(attestation, **changes)))


def test_a_run_of_some_layers_is_attested_as_that(call: Call, place: Path) -> None:
    assert call("replay", "goldens/tiny/v1.h5", "part.h5", "--layers", "0").code == 0
    assert call("attest", "part.h5", "--output", "part.json").code == 0
    ran = call("check", "--attestation", "part.json")
    assert ran.code == 0
    assert "ONLY IN PART: 2 of the golden's 11 sublayers were replayed" in ran.out


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run", "recipe", "mode"), "sideways"),
        (("run", "recipe", "not_computed"), 3),
        (("run", "recipe", "faults"), True),
        (("run", "sublayers"), ["../x"]),
        (("tensors", 0, "shape"), [2**70]),
        (("tensors", 0, "sketch", "norm"), -1.0),
        (("tensors", 0, "sketch", "projection"), "AAAA"),
        (("tensors", 0, "sketch", "rows"), "%"),
        (("tensors", 0, "state"), "fine"),
        (("golden", "name"), "../tiny"),
        (("surprise",), 1),
    ],
    ids=str,
)
def test_a_hostile_attestation_is_refused_in_one_line(
    call: Call, place: Path, path: tuple[str | int, ...], value: Any
) -> None:
    call("attest", "run.h5", "--output", "a.json")
    said: Any = json.loads((place / "a.json").read_text())
    said.pop("digest")
    inner = said
    # The first tensor that is not the same bytes: of those no sketch is read.
    said["tensors"] = [t for t in said["tensors"] if t["name"].endswith("q_proj")]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    said["digest"] = attest.digest_of(said)
    (place / "a.json").write_text(json.dumps(said))
    ran = call("check", "--attestation", "a.json")
    assert ran.code == 4
    assert "a.json" in ran.line or "its sketch cannot be read" in ran.line


def test_an_edited_attestation_is_refused(call: Call, place: Path) -> None:
    call("attest", "run.h5", "--output", "a.json")
    path = place / "a.json"
    text = path.read_text()
    path.write_text(text.replace('"device": "cpu"', '"device": "gpu"'))
    ran = call("check", "--attestation", "a.json")
    assert ran.code == 4
    assert "it was damaged, or edited" in ran.line
    path.write_text(text)
    golden = attest.load(path).golden
    other = msgspec.structs.replace(golden, manifest_digest="blake3:" + "0" * 64)
    reworded(path, golden=other)
    ran = call("check", "--attestation", "a.json")
    assert ran.code == 4
    assert "is of another golden" in ran.line


def test_a_verdict_that_its_own_sketches_contradict_is_refused(call: Call, place: Path) -> None:
    call("replay", "goldens/tiny/v1.h5", "bad.h5", "--inject", "no_rope")
    call("attest", "bad.h5", "--output", "bad.json")
    path = place / "bad.json"
    passed = [msgspec.structs.replace(t, state="passed") for t in attest.load(path).tensors]
    reworded(path, tensors=tuple(passed), ok=True)
    ran = call("check", "--attestation", "bad.json")
    assert ran.code == 4
    assert "claims that" in ran.line
    reworded(path, tensors=(), ok=True)
    assert call("check", "--attestation", "bad.json").code == 4


def test_a_run_of_no_described_golden_cannot_be_attested(call: Call, place: Path) -> None:
    shutil.rmtree(place / "goldens/tiny")
    ran = call("attest", "run.h5")
    assert ran.code == 4
    assert "replayed from a golden that no manifest" in ran.line
