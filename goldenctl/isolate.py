"""Running a function where its crash, hang or greed can hurt nobody.

The function runs in a fork of this process with limits on memory, processor time and open
files. A fork costs milliseconds where a fresh interpreter would cost its imports; it needs
nothing from other threads but h5py's lock, which h5py itself hands over. What reads a stranger's
bytes in code that is not ours runs here: HDF5, tokenizers, PyTorch's pickles, zip files, TOML.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import selectors
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError

CPU_LIMIT_S = 10
SILENCE_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 1 << 30
ANSWER_LIMIT_BYTES = 512 << 20
_SLOWEST_BYTES_S = 50 << 20  # that reading of plain bytes takes
_ALIVE, _ANSWER, _REFUSAL, _ERROR = b".", b"+", b"-", b"!"
_ERRORS = {each.__name__: each for each in (UsageError, MissingError, DamagedError)}
_PIECE_BYTES = 1 << 16
_STATM = Path("/proc/self/statm")
_FORKING = threading.Lock()  # of warnings, which are one for all threads


class Refused(Exception):  # noqa: N818 - what the function said, not what went wrong here
    """The function raised an error, crashed, or went beyond a limit; the text says which."""


class Worker:
    """What the function is given: a way to say that it gets on, and to shut itself in."""

    def __init__(self, descriptor: int, cpu_s: int = CPU_LIMIT_S) -> None:
        self._descriptor = descriptor
        self._cpu_s = cpu_s

    def alive(self) -> None:
        """Start the limits of processor time and silence again; call where work is done."""
        os.write(self._descriptor, _ALIVE)
        _limit_cpu(self._cpu_s)

    def close_the_door(self) -> None:
        """From now on no file can be opened."""
        _limit("RLIMIT_NOFILE", 0)


def isolated(function: Callable[[Worker], bytes], *, held_bytes: int = 0) -> bytes:
    """Return what ``function`` returns; Refused when it fails, in whatever way.

    It should import nothing and use nothing but its arguments. ``held_bytes`` is what it may
    hold in memory besides, and take the time to read. A GoldenctlError that it raises is raised
    here; MissingError too where this machine does not let it run. Where processes cannot be
    forked (not POSIX) it is simply called.
    """
    if not hasattr(os, "fork"):
        return _plainly(function)
    cpu_s = CPU_LIMIT_S + held_bytes // _SLOWEST_BYTES_S
    pid, reader = _forked(function, cpu_s, MEMORY_LIMIT_BYTES + held_bytes)
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
    if status == 0 and answer[:1] == _ERROR:
        kind, message, hint = json.loads(answer[1:])
        raise _ERRORS.get(kind, DamagedError)(message, hint=hint)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        message = "a process that reads a file was killed"
        raise MissingError(message, hint="the machine may have run out of memory")
    raise Refused(_reason(status, answer, cpu_s))


def _forked(function: Callable[[Worker], bytes], cpu_s: int, memory_bytes: int) -> tuple[int, int]:
    """Return the process that runs ``function`` and where it answers."""
    sys.stdout.flush()
    try:
        reader, writer = os.pipe()
        with _FORKING, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            pid = os.fork()
    except OSError as error:
        message = f"a process that reads a file cannot be started: {error.strerror}"
        raise MissingError(message, hint="see ulimit -u and ulimit -n, or free memory") from error
    if pid == 0:
        _child(function, writer, cpu_s, memory_bytes)
    os.close(writer)
    return pid, reader


def _plainly(function: Callable[[Worker], bytes]) -> bytes:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        return function(Worker(descriptor))
    except GoldenctlError:
        raise
    except Exception as error:
        raise Refused(str(error)) from error
    finally:
        os.close(descriptor)


def _child(
    function: Callable[[Worker], bytes], descriptor: int, cpu_s: int, memory_bytes: int
) -> NoReturn:
    """Answer and end, without running anything that the parent would run at its end."""
    allowed_bytes = memory_bytes
    try:
        # A lock that the parent holds must not outlive it here.
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        gc.disable()  # objects of the parent are not ours to finalize
        faulthandler.disable()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        _hush()
        allowed_bytes = _limit_memory(memory_bytes)
        _limit("RLIMIT_CORE", 0)
        _limit_cpu(cpu_s)
        _send(descriptor, _ANSWER + function(Worker(descriptor, cpu_s)))
    except GoldenctlError as error:
        _send(descriptor, _told(type(error), error.message, error.hint))
    except MemoryError:
        _send(descriptor, _too_greedy(allowed_bytes, memory_bytes))
    except PermissionError as error:
        said = f"{error.filename or 'a file'}: {error.strerror}"
        _send(descriptor, _told(MissingError, said, "see who may read it"))
    except Exception as error:
        _send(descriptor, _REFUSAL + (str(error) or type(error).__name__).encode(errors="replace"))
    except BaseException as error:  # a panic of Rust is no Exception
        said = f"what reads it crashed on it ({type(error).__name__})"
        _send(descriptor, _REFUSAL + said.encode())
    finally:
        os._exit(0)


def _too_greedy(allowed_bytes: int, memory_bytes: int) -> bytes:
    """Say who is to blame for memory that ran out: the file, or this machine's own limit."""
    if allowed_bytes >= memory_bytes:
        return _REFUSAL + b"it wants more than %d bytes of memory" % memory_bytes
    message = f"a process that reads a file may have {allowed_bytes:,} bytes of memory here"
    return _told(MissingError, message, "raise ulimit -v")


def _told(kind: type[GoldenctlError], message: str, hint: str) -> bytes:
    return _ERROR + json.dumps([kind.__name__, message, hint]).encode()


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


def _reason(status: int, answer: bytes, cpu_s: int) -> str:
    if answer[:1] == _REFUSAL:
        return answer[1:].decode(errors="replace")
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return f"reading it took more than {cpu_s} seconds of processor time"
    name = signal.Signals(number).name if number else f"exit status {status >> 8}"
    return f"what reads it crashed on it ({name})"


def _limit_cpu(cpu_s: int) -> None:
    used = os.times()
    _limit("RLIMIT_CPU", int(used.user + used.system) + cpu_s, keep_hard=True)


def _limit_memory(more_bytes: int) -> int:
    """Allow so much more address space than this process has; return how much is allowed.

    A limit that this process has already stays. Raises MissingError where it cannot be told.
    """
    if not sys.platform.startswith("linux"):
        return more_bytes
    import resource

    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[0])
    except OSError as error:
        message = f"{_STATM}: {error.strerror}: how much memory a process has cannot be told"
        raise MissingError(message, hint="mount /proc") from error
    now_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    before, _ = resource.getrlimit(resource.RLIMIT_AS)
    if before != resource.RLIM_INFINITY:
        more_bytes = min(more_bytes, max(0, before - now_bytes))
    _limit("RLIMIT_AS", now_bytes + more_bytes)
    return more_bytes


def _limit(name: str, value: int, *, keep_hard: bool = False) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    import resource

    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, hard if keep_hard else value))
