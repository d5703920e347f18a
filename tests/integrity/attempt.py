"""Runs a function in a forked process with limits and says how it ended."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Ending(NamedTuple):
    """How an attempt ended: a word the function returned, or ``crash`` or ``hang``."""

    word: str
    seconds: float
    peak_bytes: int


def attempt(function: Callable[[], str], *, limit_s: float, memory_bytes: int) -> Ending:
    """Run ``function`` in a fork of this process, with that much memory beyond what there is."""
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run(function, writer, limit_s, memory_bytes)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        word = pipe.read().decode()
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        word = "hang" if number in (signal.SIGALRM, signal.SIGXCPU) else "crash"
    return Ending(word or "crash", seconds, usage.ru_maxrss * 1024)


def _run(function: Callable[[], str], writer: int, limit_s: float, memory_bytes: int) -> None:
    """Never returns."""
    try:
        gc.disable()
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.write(writer, function().encode())
        os._exit(0)
    except BaseException as error:
        os.write(writer, f"error {type(error).__name__}: {error}"[:500].encode())
        os._exit(1)
