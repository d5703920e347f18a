"""This repository's own golden sets: recorded again, replayed on InfiniCore, and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl.cli import run

GOLDENS = Path(__file__).parent.parent / "goldens"
TINY = ("llama-tiny", "qwen2-tiny", "qwen3-tiny")


@pytest.mark.parametrize("name", TINY)
def test_what_computes_them_today_is_within_tolerance(
    name: str, harness: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.exists()
    code = run(["check", name, "--goldens", str(GOLDENS), "--against", "manifest"])
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    assert [said.out.count(word) for word in ("integrity", "record", "✗")] == [1, 1, 0]


def test_every_manifest_is_whole_and_small() -> None:
    sets = sorted(path.parent.name for path in GOLDENS.glob("*/manifest.json"))
    assert sets == sorted([*TINY, "smollm2-135m"])
    assert run(["check", "--integrity", "--goldens", str(GOLDENS)]) == 0
    assert sum(path.stat().st_size for path in GOLDENS.glob("*/manifest.json")) < 1 << 20
