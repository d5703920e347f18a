"""Running CMake and pip: what of their output is shown, and how they are ended."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from goldenctl.infini import build


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (
            ["ok", "a.cpp:1: error: bad", "note", "b.cpp: Error 2", "c error"],
            "a.cpp:1: error: bad | b.cpp: Error 2",
        ),
        (["", "the last words", ""], "the last words"),
        ([], "it printed nothing"),
    ],
)
def test_first_errors(lines: list[str], shown: str) -> None:
    assert build.first_errors(lines) == shown


def test_an_interrupted_command_ends_with_all_that_it_started(tmp_path: Path) -> None:
    started = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    processes: list[int] = []

    def interrupted(line: str) -> None:
        processes.append(int(line))
        raise KeyboardInterrupt

    task = build.Task("a build", "do that", tmp_path / "log", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build.run_logged([sys.executable, "-c", started, sleeper], task)
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)
