"""What the tests of the commands share: a tiny checkpoint, its golden and a run of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ran import Call, Ran

from goldenctl.cli import run

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share their cores


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


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the set ``tiny``, two identical versions; not to be changed."""
    goldens = tmp_path_factory.mktemp("sets") / "goldens"
    record = ["record", "synth:tiny?seed=0", "--name", "tiny", "--goldens", str(goldens)]
    for _ in range(2):
        assert run([*record, "--random-tokens", "3", "--oracle"]) == 0
    return goldens


@pytest.fixture
def goldens(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the sets, named by $GOLDENS_DIR."""
    folder = tmp_path / "goldens"
    shutil.copytree(sets, folder)
    monkeypatch.setenv("GOLDENS_DIR", str(folder))
    return folder
