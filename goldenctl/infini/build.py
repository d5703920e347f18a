"""Running CMake and pip: their output goes to a log, their first error to the user.

Both builds of this package, InfiniCore and the harness, go through ``cmake_build``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import MissingError

Progress = Callable[[str], None]
BUILD_HINT = "pip install 'goldenctl[build]', or install cmake with the system's packages"

# Of compilers, linkers and pip; a command line with -Werror is no error.
_ERROR = re.compile(r"(?i)(?:^|\s)error: |undefined reference to |multiple definition of ")
_GRACE_S = 0.3  # from SIGTERM to SIGKILL: all is gone within a second
_PATIENCE_S = 5.0  # with a killed process that is still in a system call
_LINKER_ENDED = re.compile(r"^collect2: |linker command failed")


class CommandFailed(MissingError):  # noqa: N818 - it is a MissingError
    """A command failed, and the error names its log."""


@dataclass(frozen=True)
class Task:
    """What commands are run for: ``what`` begins the error where one fails, ``remedy`` ends it."""

    what: str
    remedy: str
    log: Path
    progress: Progress


def silent(_line: str) -> None:
    """Take a progress line and do nothing."""


def compiler() -> str:
    """Return the C++ compiler CMake will be told to use; raises MissingError."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    message = "no C++ compiler was found: none of $CXX, c++, g++, clang++ is a program"
    raise MissingError(message, hint="install g++ or clang++")


def run_logged(command: Sequence[str], task: Task) -> None:
    """Run ``command``; append its output to the task's log, and pass on each line.

    Whatever ends this ends the command too. Raises CommandFailed with its first errors.
    """
    task.log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with task.log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
        with _started(command) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    lines.append(line.rstrip())
                    task.progress(line.rstrip())
            except BaseException:
                _interrupt(process)
                raise
    if process.returncode != 0:
        message = f"{task.what} failed: {first_errors(lines)}"
        raise CommandFailed(message, hint=f"{task.remedy}; the full log is {task.log}")


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start ``command`` in a process group of its own, to be ended with all that it started."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},  # first_errors reads English
        process_group=0,
    )


def _interrupt(process: subprocess.Popen[str]) -> None:
    """End a command and wait until no program of it writes any more."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    # A linker may hold no end of our pipe, and a killed process may still finish a system call
    # that makes a file: only an empty group writes no more.
    until = time.monotonic() + _PATIENCE_S
    with suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.01)
    assert process.stdout is not None
    process.stdout.read()


def first_errors(lines: Sequence[str], limit: int = 2) -> str:
    """Return the first errors of a compiler, linker or pip, else of CMake, else the last words.

    What was wrong stands before the line in which a linker ends, and after CMake's.
    """
    spoken = [line.strip() for line in lines if line.strip()]
    told: list[str] = []
    of_cmake: list[str] = []
    for before, line, after in zip(["", *spoken], spoken, [*spoken[1:], ""], strict=False):
        if _LINKER_ENDED.search(line):
            told += [before, line]
        elif _ERROR.search(line):
            told.append(line)
        elif line.startswith("CMake Error"):
            of_cmake += [line, after]
    shown = list(dict.fromkeys(filter(None, told or of_cmake)))[:limit]
    return " | ".join(shown or spoken[-1:] or ["it printed nothing"])


def cmake_build(source: Path, build: Path, defines: Mapping[str, str], task: Task) -> None:
    """Configure and build the CMake project in ``source`` into ``build``; raises MissingError."""
    cmake = tool("cmake")
    if cmake is None:
        message = f"{task.what} needs cmake, which was not found"
        raise MissingError(message, hint=BUILD_HINT)
    configure = [cmake, "-S", str(source), "-B", str(build)]
    configure += [f"-DCMAKE_CXX_COMPILER={compiler()}"]
    if ninja := tool("ninja"):
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    else:
        configure += ["-G", "Unix Makefiles"]
    configure += [f"-D{name}={value}" for name, value in defines.items()]
    jobs = str(os.cpu_count() or 1)
    run_logged(configure, task)
    run_logged([cmake, "--build", str(build), "--parallel", jobs], task)


def cmake_install(build: Path, task: Task) -> None:
    """Install what ``cmake_build`` built; raises MissingError."""
    cmake = tool("cmake")
    assert cmake is not None
    run_logged([cmake, "--install", str(build)], task)


def tool(name: str) -> str | None:
    """Return the program ``name`` beside the running Python, or the one on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
