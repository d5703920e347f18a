"""Runs commands in forks of one warm process, so that hundreds can be killed: none pays for
its imports. With strace, the N-th system call of a kind kills or fails the command."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LIMIT_S = 120.0
WRITES = (
    "write", "pwrite64", "pwritev", "fsync", "fdatasync", "ftruncate", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "link", "linkat", "symlink",
    "copy_file_range", "sendfile", "fallocate",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal) and what it said."""

    code: int
    said: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Injection:
    """What strace does at the ``when``-th call of ``call``: ``signal=KILL``, ``error=ENOSPC``."""

    call: str
    action: str
    when: str

    def options(self) -> list[str]:
        return [
            "-e",
            f"trace={self.call}",
            "-e",
            f"inject={self.call}:{self.action}:when={self.when}",
        ]


def warm_up() -> None:
    """Import what commands import, without starting a thread."""
    import torch  # noqa: F401

    import goldenctl.commands.sets
    import goldenctl.diff.judge
    import goldenctl.golden.file
    import goldenctl.reference.record
    import goldenctl.replay.backend
    import goldenctl.replay.run  # noqa: F401


def can_inject() -> bool:
    """Whether strace is here and may trace."""
    strace = shutil.which("strace")
    return (
        strace is not None
        and not subprocess.run(
            [strace, "-qq", "-o", "/dev/null", "true"], capture_output=True
        ).returncode
    )


def run(
    arguments: list[str],
    folder: Path,
    *,
    kill_after_s: float | None = None,
    inject: Injection | None = None,
) -> Ended:
    """Run goldenctl in a fork of this process, in ``folder``; perhaps kill it, perhaps fail a
    system call. What it prints goes to a file elsewhere."""
    log = Path(tempfile.gettempdir()) / f"goldenctl-forked-{os.getpid()}.log"
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(arguments, folder, log, stopped=inject is not None)
    tracer = _attach(pid, inject) if inject is not None else None
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    code = _wait(pid, started + LIMIT_S)
    if tracer is not None:
        tracer.wait()
    return Ended(code, log.read_text(errors="replace"), time.monotonic() - started)


def _child(arguments: list[str], folder: Path, log: Path, *, stopped: bool) -> NoReturn:
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        from goldenctl import cli

        code = cli.run(arguments)
        sys.stdout.flush()
    finally:
        os._exit(code)


def _attach(pid: int, inject: Injection) -> subprocess.Popen[bytes]:
    os.waitpid(pid, os.WUNTRACED)
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject.options(), "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            message = "strace could not attach"
            raise RuntimeError(message)
        time.sleep(0.001)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _wait(pid: int, deadline: float) -> int:
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        os.kill(pid, signal.SIGCONT)  # strace may have taken the first one for its own
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    message = f"a command did not end within {LIMIT_S} s"
    raise TimeoutError(message)


def moments(duration_s: float, count: int, *, seed: int) -> list[float]:
    """Return ``count`` moments, spread over a command's duration."""
    chosen = random.Random(seed)
    return [chosen.uniform(0, duration_s) for _ in range(count)]
