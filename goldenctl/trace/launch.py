"""Runs a program with the shim preloaded, and says how that ended.

The shim writes two files for each process, named by its number: ``N.state``, as soon as it is
loaded, and ``N.calls``, the log, when the process calls InfiniCore.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from goldenctl.errors import MissingError
from goldenctl.folders import scratch

_STATE = struct.Struct("<8sQQq64s")  # as struct Progress in shim/session.h
_STATE_MAGIC = b"GCTTRACE"
_GRACE_S = 5.0  # from SIGTERM to SIGKILL of a program whose time is over
_HASTE_S = 0.3  # the same when goldenctl is to end: all is gone within a second
_POLL_S = 0.02
_TELL_S = 0.5

# Called with how many calls were traced and how many bytes the logs have.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class State:
    """What one process says of itself; ``function`` is the launch that is running, if any."""

    pid: int
    calls: int
    skipped: int
    error: int  # errno of its log
    function: str


@dataclass(frozen=True)
class Launch:
    """A program to trace: where the shim writes, and what it gets beside its environment.

    ``timeout_s`` bounds the whole run; None is no bound.
    """

    command: Sequence[str]
    shim: Path
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a program ended: ``status`` is its exit status, or minus the signal that killed it.

    Of ``logs`` the one with the most calls, of the process that ran the model, is the first.
    """

    status: int
    timed_out: bool
    took_s: float
    states: tuple[State, ...]
    logs: tuple[Path, ...]


def launch(wanted: Launch, progress: Progress = lambda *_: None) -> Ending:
    """Run the program to its end; its standard streams are this process's own.

    Whatever ends this ends the program too. Raises MissingError when it cannot be started.
    """
    with _preloadable(wanted.shim) as shim:
        return _run(wanted, shim, progress)


@contextmanager
def _preloadable(shim: Path) -> Iterator[Path]:
    """Yield the library under a path that LD_PRELOAD can hold: it splits at spaces and colons."""
    if not re.search(r"[\s:]", str(shim)):
        yield shim
        return
    with scratch() as folder:
        link = Path(folder, shim.name)
        link.symlink_to(shim)
        yield link


def _run(wanted: Launch, shim: Path, progress: Progress) -> Ending:
    environment = {**os.environ, **wanted.settings, "GOLDENCTL_TRACE": str(wanted.folder)}
    before = os.environ.get("LD_PRELOAD", "")
    environment["LD_PRELOAD"] = f"{shim}:{before}" if before else str(shim)
    # A group of its own can be ended with all that it started, but cannot read from a terminal.
    group = None if sys.stdin is not None and sys.stdin.isatty() else 0
    started = time.monotonic()
    try:
        process = subprocess.Popen(wanted.command, env=environment, process_group=group)
    except OSError as error:
        message = f"{wanted.command[0]}: cannot be started ({error.strerror})"
        raise MissingError(message) from error
    try:
        timed_out = _wait(process, wanted, progress)
    except BaseException:
        _end(process, group, _HASTE_S)
        raise
    if timed_out:
        _end(process, group, _GRACE_S)
    took_s = time.monotonic() - started
    found = states(wanted.folder)
    calls = {state.pid: state.calls for state in found}
    logs = sorted(_logs(wanted.folder), key=lambda path: -calls.get(int(path.stem), 0))
    return Ending(process.returncode, timed_out, took_s, found, tuple(logs))


def _wait(process: subprocess.Popen[bytes], wanted: Launch, progress: Progress) -> bool:
    """Wait until the program has ended; return whether its time was over before."""
    started = told = time.monotonic()
    while process.poll() is None:
        now = time.monotonic()
        if wanted.timeout_s is not None and now - started > wanted.timeout_s:
            return True
        if now - told > _TELL_S:
            told = now
            calls = sum(state.calls for state in states(wanted.folder))
            progress(calls, sum(path.stat().st_size for path in _logs(wanted.folder)))
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    return False


def _end(process: subprocess.Popen[bytes], group: int | None, grace_s: float) -> None:
    """End the program, and where it has a group of its own all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            if group is None:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)


def states(folder: Path) -> tuple[State, ...]:
    """Return what the processes say of themselves; the shim may be writing it just now."""
    found = []
    for path in sorted(folder.glob("*.state")):
        data = path.read_bytes()
        if len(data) != _STATE.size or not path.stem.isdecimal():
            continue
        magic, calls, skipped, error, function = _STATE.unpack(data)
        if magic == _STATE_MAGIC:
            name = function.partition(b"\0")[0].decode("ascii", "replace")
            found.append(State(int(path.stem), calls, skipped, error, name))
    return tuple(found)


def _logs(folder: Path) -> tuple[Path, ...]:
    found = (path for path in folder.glob("*.calls") if path.stem.isdecimal())
    return tuple(sorted(found, key=lambda path: int(path.stem)))


def what_went_wrong(ending: Ending, program: str, *, timeout_s: float | None) -> str:
    """Say in one line how a program ended otherwise than well, or return an empty text."""
    states = [state for state in ending.states if state.function]
    where = f" in {states[0].function}, call {states[0].calls + 1}" if states else ""
    if ending.timed_out:
        return f"{program}: was ended after {timeout_s:g} s{where}"
    if ending.status < 0:
        with suppress(ValueError):
            return f"{program}: {signal.Signals(-ending.status).name} ended it{where}"
        return f"{program}: signal {-ending.status} ended it{where}"
    if ending.status > 0:
        return f"{program}: ended with exit status {ending.status}"
    return ""
