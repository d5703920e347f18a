"""Owns running CMake and pip: their output to a log, their first error to the user, one at a time.

Both builds of this package, InfiniCore and the harness, go through ``cmake_build``.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from goldenctl.errors import MissingError

Progress = Callable[[str], None]
BUILD_HINT = "pip install 'goldenctl[build]', or install cmake with the system's packages"


def silent(_line: str) -> None:
    """Take a progress line and do nothing."""


@contextmanager
def exclusive(path: Path, progress: Progress = silent) -> Iterator[None]:
    """Hold the lock file ``path``; waits for another process. The file stays, the lock goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compiler() -> str:
    """Return the C++ compiler CMake will be told to use; raises MissingError."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    message = "no C++ compiler was found: none of $CXX, c++, g++, clang++ is a program"
    raise MissingError(message, hint="install g++ or clang++")


def run_logged(command: Sequence[str], log: Path, what: str, progress: Progress) -> None:
    """Run ``command``, append its output to ``log``, and pass each line to ``progress``.

    Raises MissingError with the first error lines when it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                lines.append(line.rstrip())
                progress(line.rstrip())
    if process.returncode != 0:
        message = f"{what} failed: {first_errors(lines)}"
        raise MissingError(message, hint=f"the full log is {log}")


def first_errors(lines: Sequence[str], limit: int = 2) -> str:
    """Return the first lines that speak of an error, else the last line that says anything."""
    telling = [line.strip() for line in lines if "error" in line.lower()]
    spoken = [line.strip() for line in lines if line.strip()]
    return " | ".join(telling[:limit] or spoken[-1:] or ["it printed nothing"])


def cmake_build(
    source: Path,
    build: Path,
    defines: Mapping[str, str],
    *,
    what: str,
    log: Path,
    progress: Progress,
) -> None:
    """Configure and build the CMake project in ``source`` into ``build``; raises MissingError."""
    cmake = tool("cmake")
    if cmake is None:
        message = f"{what} needs cmake, which was not found"
        raise MissingError(message, hint=BUILD_HINT)
    configure = [cmake, "-S", str(source), "-B", str(build)]
    configure += [f"-DCMAKE_CXX_COMPILER={compiler()}"]
    if ninja := tool("ninja"):
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    else:
        configure += ["-G", "Unix Makefiles"]
    configure += [f"-D{name}={value}" for name, value in defines.items()]
    jobs = str(os.cpu_count() or 1)
    run_logged(configure, log, what, progress)
    run_logged([cmake, "--build", str(build), "--parallel", jobs], log, what, progress)


def cmake_install(build: Path, *, what: str, log: Path, progress: Progress) -> None:
    """Install what ``cmake_build`` built; raises MissingError."""
    cmake = tool("cmake")
    assert cmake is not None
    run_logged([cmake, "--install", str(build)], log, what, progress)


def tool(name: str) -> str | None:
    """Return the program ``name`` beside the running Python, or the one on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
