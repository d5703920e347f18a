"""Notes: what diff says of results that all err one way, and that --strict fails them."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest

from goldenctl.cli import run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, harness: Path) -> tuple[str, str]:
    """A float16 golden, and its replay on InfiniCore 0.1.0, whose conversion cuts off."""
    folder = tmp_path_factory.mktemp("strict")
    golden, out = str(folder / "golden.h5"), str(folder / "run.h5")
    assert run(["synth", "tiny", str(folder / "tiny")]) == 0
    words = ["record", str(folder / "tiny"), golden, "--random-tokens", "16", "--layers", "0"]
    assert run([*words, "--dtype", "float16", "--oracle"]) == 0
    assert run(["replay", golden, out]) == 0
    return golden, out


def test_truncation_passes_with_a_note(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    pages = {kind: tmp_path / f"report.{kind}" for kind in ("html", "junit", "markdown", "csv")}
    options = [word for kind, path in pages.items() for word in (f"--{kind}", str(path))]
    assert run(["diff", *pair, *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("✓ PASS")
    assert "note: " in said
    assert "rounds toward zero: -0." in said
    for path in pages.values():
        assert "rounds toward zero: -0." in unescape(path.read_text()).replace("\\", "")


def test_strict_fails_what_is_noted_and_says_why(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["diff", *pair, "--strict"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("✗ FAIL")
    assert "first wrong: layers.00.attention" in said
    assert "rounds toward zero: -0." in said


def test_strict_is_refused_of_a_stored_report(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = str(tmp_path / "report.json")
    assert run(["diff", *pair, "--json", report]) == 0
    capsys.readouterr()
    assert run(["diff", report, "--strict"]) == 2
    assert "--strict: a stored report stands as it was judged" in capsys.readouterr().err


def test_verify_and_check_can_be_strict_too(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, goldens = str(Path(pair[0]).parent / "tiny"), str(tmp_path / "goldens")
    words = ["record", model, "--name", "strict", "--random-tokens", "16", "--layers", "0"]
    half = ["--dtype", "float16"]
    assert run([*words, *half, "--oracle", "--goldens", goldens]) == 0
    checked = ["check", "strict", "--goldens", goldens]
    verified = ["verify", "--model-path", model, *half, "--keep", str(tmp_path / "kept")]
    capsys.readouterr()
    for command in (checked, verified):
        assert run([*command, "--strict"]) == 1
        assert "rounds toward zero: -0." in " ".join(capsys.readouterr().out.split())
    assert run(checked) == 0
