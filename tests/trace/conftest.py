"""What the tests of tracing share: a program on InfiniCore, its model and golden."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install
from goldenctl.records.structure import Trace as StructureTrace
from goldenctl.trace.calls import Calls, read_calls
from goldenctl.trace.run import TraceSummary

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share their cores
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def engine(infini_install: Install, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program of engine.cpp."""
    return _compiled(infini_install, tmp_path_factory.mktemp("engine") / "engine")


@pytest.fixture(scope="session")
def engine_library(infini_install: Install, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same as a library, as a module of Python is."""
    path = tmp_path_factory.mktemp("engine") / "engine.so"
    return _compiled(infini_install, path, "-shared", "-fPIC")


def _compiled(install: Install, target: Path, *options: str) -> Path:
    lib = install.root / "lib"
    command = [compiler(), "-std=c++17", "-O1", str(HERE / "engine.cpp"), "-o", str(target)]
    command += [f"-I{install.include}", f"-L{lib}", f"-Wl,-rpath,{lib}", *options]
    subprocess.run([*command, "-linfiniop", "-linfinirt", "-pthread", "-ldl"], check=True)
    return target


@pytest.fixture(scope="session")
def traced_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a tiny checkpoint and a golden of it; not to be changed."""
    folder = tmp_path_factory.mktemp("traced")
    assert run(["synth", "tiny", str(folder / "tiny")]) == 0
    words = ["record", str(folder / "tiny"), str(folder / "golden.h5"), "--token-ids", "5,6,7"]
    assert run(words) == 0
    return folder / "tiny", folder / "golden.h5"


@dataclass(frozen=True)
class Traced:
    """How ``goldenctl trace`` ended: its exit code, what was printed, and the log if any."""

    code: int
    stdout: str
    stderr: str
    kept: Path

    @property
    def calls(self) -> Calls:
        return read_calls(self.kept)


Trace = Callable[..., Traced]


@pytest.fixture
def trace(
    traced_model: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Trace:
    """Return a function that traces a command line with options before it.

    What it computes is no model, and is not named.
    """
    summary = TraceSummary(trace=StructureTrace(), steps=())
    monkeypatch.setattr("goldenctl.trace.run.write_run", lambda *_, **__: summary)

    def traced(*command: object, options: tuple[str, ...] = ()) -> Traced:
        kept = tmp_path / "log.calls"
        words = ["trace", str(traced_model[1]), str(tmp_path / "run.h5"), "--keep-calls", str(kept)]
        capfd.readouterr()
        code = run([*words, *options, "--", *map(str, command)])
        return Traced(code, *capfd.readouterr(), kept)

    return traced
