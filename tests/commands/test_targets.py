"""What a command may write over: its own kind of file, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from goldenctl.cli import run
from tests.commands.conftest import Call


@pytest.fixture(scope="module")
def files(checkpoint: Path, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file of every kind that goldenctl writes, and some of nobody."""
    place = tmp_path_factory.mktemp("kinds")
    shutil.copytree(checkpoint, place / "model")
    shutil.copy(golden, place / "golden.h5")
    made = [
        "replay @golden.h5 @run.h5 --backend torch --force",
        "diff @golden.h5 @run.h5 --json @r.json --html @r.html --junit @r.xml --markdown @r.md "
        "--csv @r.csv",
        "bench @golden.h5 --backend torch --layers 0 --repeat 1 --json @bench.json",
        "plot @r.json --figure map --output @map.svg",
        *(f"export @golden.h5 @a.{end}" for end in ("h5", "npz", "safetensors")),
        "export @golden.h5 @a.gguf --op layers.00.mlp.swiglu",
    ]
    for words in made:
        assert run(words.replace("@", f"{place}/").split()) == 0
    (place / "text").write_text("hello\n")
    (place / "page.html").write_text('<!doctype html>\n<html lang="en">\n<head>\n</head></html>\n')
    (place / "other.xml").write_text('<?xml version="1.0"?>\n<testsuites name="pytest"/>\n')
    return place


def _contents(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


REFUSED = [
    ("diff @golden.h5 @run.h5 --json @run.h5", "run.h5: it exists and is not a JSON report"),
    ("diff @golden.h5 @run.h5 --json @bench.json", "is not a JSON report that goldenctl wrote"),
    ("diff @golden.h5 @run.h5 @run.h5 --json @golden.h5", "is not a JSON report"),
    ("diff @golden.h5 @run.h5 --html @golden.h5", "golden.h5: it exists and is not an HTML report"),
    ("diff @golden.h5 @run.h5 --html @page.html", "is not an HTML report that goldenctl wrote"),
    ("diff @golden.h5 @run.h5 --csv @model/config.json", "config.json: it exists and is not a CSV"),
    ("diff @golden.h5 @run.h5 --junit @other.xml", "is not a JUnit report that goldenctl wrote"),
    ("diff @golden.h5 @run.h5 --markdown @text", "text: it exists and is not a Markdown report"),
    ("report @r.json --html @r.json", "r.json: it exists and is not an HTML report"),
    ("blame @golden.h5 --backend torch --json @golden.h5", "is not a JSON report"),
    ("selftest @golden.h5 --backend torch --json @golden.h5", "is not a JSON report"),
    ("check --json @golden.h5", "is not a JSON report"),
    ("check --attestation @text --json @golden.h5", "is not a JSON report"),
    ("verify --model-path @model --output @model/config.json", "is not a JSON report"),
    ("bench @golden.h5 --backend torch --json @golden.h5", "is not a JSON file of bench"),
    ("attest @run.h5 --output @golden.h5", "golden.h5: it exists and is not an attestation"),
    ("plot @r.json --output @text.svg", "text.svg: it exists and is not a figure"),
    ("replay @golden.h5 @a.h5", "a.h5: it exists and is not a run file"),
    ("record @model @model/model.safetensors --force", "model.safetensors: it exists and is not a"),
    ("record @model @run.h5 --force", "run.h5: it exists and is not a golden that goldenctl wrote"),
    ("record @model @a.h5 --force", "a.h5: it exists and is not a golden that goldenctl wrote"),
    ("export @golden.h5 @golden.h5 --force", "golden.h5: it exists and is not an archive that"),
    ("export @golden.h5 @model/model.safetensors --force", "is not an export that goldenctl"),
    ("export @golden.h5 @a.h5 --format npz --force", "a.h5: it exists and is not an export"),
    ("import @a.h5 @a.h5 --force", "a.h5: it exists and is not a golden that goldenctl wrote"),
    ("import @a.npz @run.h5 --force", "run.h5: it exists and is not a golden that goldenctl"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
def test_nothing_else_is_written_over(call: Call, files: Path, words: str, said: str) -> None:
    (files / "text.svg").write_text("<svg/>")
    before = _contents(files)
    ran = call(*words.replace("@", f"{files}/").split())
    assert (ran.code, said in ran.line) == (2, True), ran.err
    assert _contents(files) == before


REPLACED = [
    "diff @golden.h5 @run.h5 --json @r.json --html @r.html --junit @r.xml --markdown @r.md "
    "--csv @r.csv",
    "diff @golden.h5 @run.h5 @run.h5 --json @r.json",
    "bench @golden.h5 --backend torch --layers 0 --repeat 1 --json @bench.json",
    "plot @r.json --figure map --output @map.svg",
    "replay @golden.h5 @run.h5 --backend torch --force",
    "export @golden.h5 @a.h5 --force",
    "export @golden.h5 @a.npz --force",
    "export @golden.h5 @a.safetensors --force",
    "export @golden.h5 @a.gguf --op layers.00.mlp.swiglu --force",
    "import @a.npz @golden.h5 --force",
    "record @model @golden.h5 --random-tokens 5 --force",
]


@pytest.mark.parametrize("words", REPLACED)
def test_its_own_kind_is_replaced(call: Call, files: Path, tmp_path: Path, words: str) -> None:
    place = tmp_path / "copy"
    shutil.copytree(files, place)
    ran = call(*words.replace("@", f"{place}/").split())
    assert (ran.code, ran.err) == (0, "")


def test_an_empty_file_is_free_and_a_device_takes_a_report(call: Call, files: Path) -> None:
    empty = files / "empty"
    empty.touch()
    pair = ("diff", files / "golden.h5", files / "run.h5")
    assert call(*pair, "--json", empty, "--csv", "/dev/null").code == 0
    assert empty.read_bytes() == (files / "r.json").read_bytes()
    refused = call("replay", files / "golden.h5", "/dev/null", "--backend", "torch")
    assert (refused.code, "/dev/null: it exists and is not" in refused.line) == (2, True)


MIXED_UP = [
    ("diff @golden.h5 @a.h5", "a.h5: is an archive that export wrote; goldenctl import "),
    ("replay @a.h5 @q.h5", "a.h5: is an archive that export wrote; goldenctl import "),
    ("import @run.h5 @q.h5", "run.h5: is a run already"),
    ("report @golden.h5", "golden.h5: is a golden, not a report that --json wrote"),
    ("report @a.h5", "a.h5: is an archive, not a report that --json wrote"),
    ("report @model", "model: is a folder, expected a file"),
    ("inspect @model", "model: is a folder, expected a file"),
    ("inspect model", "goldenctl: model: is a folder, expected a file"),
    ("diff @golden.h5 model", "goldenctl: model: is a folder, expected a file"),
    ("check --attestation @none.json", "none.json: there is no such file"),
    ("check --attestation @model", "model: is a folder, expected a file"),
]


@pytest.mark.parametrize(("words", "said"), MIXED_UP, ids=[words for words, _ in MIXED_UP])
def test_another_kind_is_named_for_what_it_is(
    call: Call, files: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(files)
    ran = call(*words.replace("@", f"{files}/").split())
    assert (ran.code, said in ran.line) == (2, True), ran.err
