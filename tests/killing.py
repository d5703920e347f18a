"""Killing goldenctl at its write points, as ``kill -9`` at that moment would.

Run as a program: ``python killing.py MODULES ARGUMENTS...`` imports the modules
(``module:NAME=1.5`` also sets a number in one), then reads numbers from standard input, one a
line, and for each runs the command line in a process of its own that dies at its N-th write
point (0: never). It answers with the exit status, negative for a signal. A process that forks
is much faster than a hundred that each import torch.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

POINTS = [
    (os, "fsync"),
    (os, "fdatasync"),
    (os, "write"),
    (os, "pwrite"),
    (Path, "replace"),
    (shutil, "rmtree"),
]


class Killer:
    """A command line that can be run again and again, each time dying elsewhere."""

    def __init__(self, modules: str, *arguments: object) -> None:
        command = [sys.executable, __file__, modules, *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Killer:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, point: int = 0) -> int:
        """Run until the write point; return the exit status, -9 when it was reached."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{point}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def dying(point: int) -> Iterator[None]:
    """Make the N-th call of any write point the last thing that this process does."""
    count = 0

    def watched(call: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    for owner, name in POINTS:
        setattr(owner, name, watched(getattr(owner, name)))
    yield


def main() -> None:
    modules, *arguments = sys.argv[1:]
    for entry in modules.split(","):
        module, _, setting = entry.partition(":")
        imported = importlib.import_module(module)
        if setting:
            name, _, value = setting.partition("=")
            setattr(imported, name, float(value))
    from goldenctl.cli import run

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with dying(int(line)):
                code = run(arguments)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
