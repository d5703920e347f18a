"""Owns what the tests of the commands share: a tiny checkpoint, its golden and a run of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from goldenctl.cli import run

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share their cores

Call = Callable[..., "Ran"]


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that an error is; fails when it is not one."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("goldenctl: ")
        assert "internal error" not in lines[0]
        return lines[0]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs a command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")

    def called(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return called


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny Qwen3 checkpoint; not to be changed."""
    out = tmp_path_factory.mktemp("commands") / "tiny"
    assert run(["synth", "tiny", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def golden(checkpoint: Path) -> Path:
    """Return a float32 golden of five random tokens; not to be changed."""
    out = checkpoint.parent / "golden.h5"
    assert run(["record", str(checkpoint), str(out), "--random-tokens", "5"]) == 0
    return out


@pytest.fixture(scope="session")
def replayed(golden: Path, harness: Path) -> Path:
    """Return a run of the golden on InfiniCore's CPU; not to be changed."""
    out = golden.parent / "run.h5"
    assert run(["replay", str(golden), str(out)]) == 0
    return out
