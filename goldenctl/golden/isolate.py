"""Running a function where its crash, hang or greed can hurt nobody.

The function runs in a fork of this process with limits on memory, processor time and open
files. A fork costs milliseconds where a fresh interpreter would cost its imports; it needs
nothing from other threads but h5py's lock, which h5py itself hands over.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import selectors
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CPU_LIMIT_S = 10
SILENCE_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 1 << 30
ANSWER_LIMIT_BYTES = 512 << 20
_ALIVE, _ANSWER, _REFUSAL = b".", b"+", b"-"
_PIECE_BYTES = 1 << 16
_FORKING = threading.Lock()  # of warnings, which are one for all threads


class Refused(Exception):  # noqa: N818 - what the function said, not what went wrong here
    """The function raised an error, crashed, or went beyond a limit; the text says which."""


class Worker:
    """What the function is given: a way to say that it gets on, and to shut itself in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def alive(self) -> None:
        """Start the limits of processor time and silence again; call where work is done."""
        os.write(self._descriptor, _ALIVE)
        _limit_cpu()

    def close_the_door(self) -> None:
        """From now on no file can be opened."""
        _limit("RLIMIT_NOFILE", 0)


def isolated(function: Callable[[Worker], bytes]) -> bytes:
    """Return what ``function`` returns; Refused when it fails, in whatever way.

    It may not import anything and should use nothing but its arguments. Where processes
    cannot be forked (not POSIX) it is simply called.
    """
    if not hasattr(os, "fork"):
        return _plainly(function)
    reader, writer = os.pipe()
    sys.stdout.flush()
    with _FORKING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        pid = os.fork()
    if pid == 0:
        _child(function, writer)
    os.close(writer)
    status = None
    try:
        said = _listen(reader)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(reader)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    answer = bytes(said.lstrip(_ALIVE))
    if status == 0 and answer[:1] == _ANSWER:
        return answer[1:]
    raise Refused(_reason(status, answer))


def _plainly(function: Callable[[Worker], bytes]) -> bytes:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        return function(Worker(descriptor))
    except Exception as error:
        raise Refused(str(error)) from error
    finally:
        os.close(descriptor)


def _child(function: Callable[[Worker], bytes], descriptor: int) -> NoReturn:
    """Answer and end, without running anything that the parent would run at its end."""
    try:
        # A lock that the parent holds must not outlive it here.
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        gc.disable()  # objects of the parent are not ours to finalize
        faulthandler.disable()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        _hush()
        _limit_memory()
        _limit("RLIMIT_CORE", 0)
        _limit_cpu()
        _send(descriptor, _ANSWER + function(Worker(descriptor)))
    except MemoryError:
        _send(descriptor, _REFUSAL + b"it wants more than %d bytes of memory" % MEMORY_LIMIT_BYTES)
    except Exception as error:
        _send(descriptor, _REFUSAL + (str(error) or type(error).__name__).encode(errors="replace"))
    finally:
        os._exit(0)


def _hush() -> None:
    """Let the library's own messages go nowhere; what is wrong is said in one line."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _listen(reader: int) -> bytearray:
    """Read until the child's end; Refused when it is silent or says too much."""
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while selector.select(SILENCE_LIMIT_S):
            piece = os.read(reader, _PIECE_BYTES)
            if not piece:
                return said
            said += piece
            if len(said) > ANSWER_LIMIT_BYTES:
                message = f"it describes more than {ANSWER_LIMIT_BYTES} bytes of metadata"
                raise Refused(message)
    message = f"reading it took more than {SILENCE_LIMIT_S:g} seconds"
    raise Refused(message)


def _reason(status: int, answer: bytes) -> str:
    if answer[:1] == _REFUSAL:
        return answer[1:].decode(errors="replace")
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return f"reading it took more than {CPU_LIMIT_S} seconds of processor time"
    name = signal.Signals(number).name if number else f"exit status {status >> 8}"
    return f"the HDF5 library crashed on it ({name})"


def _limit_cpu() -> None:
    used = os.times()
    _limit("RLIMIT_CPU", int(used.user + used.system) + CPU_LIMIT_S, keep_hard=True)


def _limit_memory() -> None:
    """Allow so much more address space than this process has."""
    if not sys.platform.startswith("linux"):
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _limit("RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_LIMIT_BYTES)


def _limit(name: str, value: int, *, keep_hard: bool = False) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    import resource

    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, hard if keep_hard else value))
