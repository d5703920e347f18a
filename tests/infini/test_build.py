"""Running CMake and pip: what of their output is shown, and how they are ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from goldenctl.infini import build

COMMAND = "/usr/bin/c++ -Wall -Wextra -Werror -o run.o -c run.cpp"


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        pytest.param(
            ["FAILED: run.o", COMMAND, "a.cpp:1:2: error: bad", "note", "a.h: fatal error: worse"],
            "a.cpp:1:2: error: bad | a.h: fatal error: worse",
            id="a compiler, after its command line",
        ),
        pytest.param(
            [COMMAND, "/usr/bin/ld: skipping x.so", "collect2: error: ld returned 1 exit status"],
            "/usr/bin/ld: skipping x.so | collect2: error: ld returned 1 exit status",
            id="a linker",
        ),
        pytest.param(
            [
                "/usr/bin/ld: a.o: in function `main':",
                "a.cpp:(.text+0x5): undefined reference to `f()'",
                "collect2: error: ld returned 1 exit status",
            ],
            "a.cpp:(.text+0x5): undefined reference to `f()' | "
            "collect2: error: ld returned 1 exit status",
            id="an undefined name",
        ),
        pytest.param(
            ["CMake Error at CMakeLists.txt:26 (find_library):", "", "  Could not find X", "Call"],
            "CMake Error at CMakeLists.txt:26 (find_library): | Could not find X",
            id="CMake",
        ),
        pytest.param(
            ["CMake Error at Test.cmake:71 (message):", "  The C++ compiler", "  x: error: no y"],
            "x: error: no y",
            id="a compiler that CMake tries",
        ),
        pytest.param(["ERROR: No matching distribution"], "ERROR: No matching distribution"),
        pytest.param(["", "the last words", ""], "the last words"),
        pytest.param([], "it printed nothing"),
    ],
)
def test_first_errors(lines: list[str], shown: str) -> None:
    assert build.first_errors(lines) == shown


def test_errors_are_in_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a compiler that speaks another language would not be known as errors."""
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    lines: list[str] = []
    task = build.Task("a build", "do that", tmp_path / "log", lines.append)
    build.run_logged([sys.executable, "-c", "import os; print(os.environ['LC_ALL'])"], task)
    assert lines == ["C"]


def _runs(pid: int) -> bool:
    """Whether a process is there and is more than what nobody has asked the end of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
    while _runs(processes[0]):
        assert time.monotonic() - begun < 40
        time.sleep(0.05)
