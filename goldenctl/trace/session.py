"""One trace of a program: what it is asked for, and what came of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import EXIT_BEYOND_TOLERANCE, GoldenctlError, MissingError, UsageError
from goldenctl.infini.build import Progress as Notify
from goldenctl.infini.find import Install
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.trace.build import build_shim
from goldenctl.trace.calls import Calls, read_calls
from goldenctl.trace.digest import native_digest_rows
from goldenctl.trace.headers import read_headers
from goldenctl.trace.launch import Ending, Launch, Progress, launch, what_went_wrong
from goldenctl.trace.operators import operators
from goldenctl.trace.program import find_program
from goldenctl.trace.weights import Book

# InfiniCore's operators for the ops of a golden, beside those of an op's own name.
_OPERATORS = {
    "linear": ("gemm", "addrmsnorm"),
    "rmsnorm": ("addrmsnorm",),
    "add": ("addrmsnorm",),
    "attention": (
        "gemm",
        "causalsoftmax",
        "softmax",
        "flashattention",
        "pagedattention",
        "pagedattentionprefill",
    ),
    "swiglu": ("siluandmul", "silu", "mul"),
}


@dataclass(frozen=True)
class Wanted:
    """What to trace of a program.

    ``ops`` are names of operators, or None for all; ``log_bytes`` bounds the log.
    """

    command: Sequence[str]
    install: Install
    ops: frozenset[str] | None = None
    timeout_s: float | None = None
    log_bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it: ``logs`` are of the processes that called InfiniCore.

    The one with the most calls is the first. ``error`` is what keeps this from being the whole
    story of a good run; ``book`` has the checkpoint's rows, where they were digested.
    """

    ending: Ending
    logs: tuple[Calls, ...]
    book: Book | None
    error: GoldenctlError | None


class ProgramError(GoldenctlError):
    """The program crashed, hung or ended with an error."""

    exit_code = EXIT_BEYOND_TOLERANCE


def chosen_ops(text: str | None, install: Install) -> frozenset[str] | None:
    """Parse ``rms_norm,Gemm``, or ``none``, into InfiniCore's operators; None stays None.

    Raises UsageError for a name that is none of a golden's ops and no operator of the install.
    """
    if text is None or text == "none":
        return None if text is None else frozenset()
    known = {o.op.lower(): o.op for o in operators(read_headers(install.include))[0]}
    chosen: set[str] = set()
    for word in text.split(","):
        name = word.strip().replace("_", "").lower()
        found = [known[each] for each in (name, *_OPERATORS.get(name, ())) if each in known]
        if not found:
            neither = f"neither an op of a golden nor an operator of {install.root}"
            message = f"--ops {text}: {word!r} is {neither}"
            raise UsageError(message, hint=f"there are {', '.join(sorted(known.values())[:8])}...")
        chosen.update(found)
    return frozenset(chosen)


@contextmanager
def log_folder(beside: Path) -> Iterator[Path]:
    """Yield a folder for the logs on the disk of ``beside``; it goes afterwards."""
    with tempfile.TemporaryDirectory(prefix=f".{beside.name}.trace-", dir=beside.parent) as name:
        yield Path(name).absolute()  # the program may go to another folder


def trace(
    wanted: Wanted, checkpoint: Checkpoint, folder: Path, notify: Notify, progress: Progress
) -> Outcome:
    """Run a program under the shim with its logs in ``folder``.

    Raises MissingError when it cannot be traced at all, or the shim cannot be built.
    """
    program = find_program(wanted.command[0])
    shim = build_shim(wanted.install, progress=notify)
    settings = {"GOLDENCTL_TRACE_INFINIOP": str(_infiniop(wanted.install))}
    if wanted.ops is not None:
        settings["GOLDENCTL_TRACE_OPS"] = ",".join(sorted(wanted.ops))
    if wanted.log_bytes is not None:
        settings["GOLDENCTL_TRACE_LIMIT"] = str(wanted.log_bytes)
    book = None
    if wanted.ops != frozenset():
        digest = native_digest_rows(shim)
        book = Book.of(checkpoint, digest, notify=notify)
        book.write_table(folder / "weights")
        settings["GOLDENCTL_TRACE_WEIGHTS"] = str(folder / "weights")
    command = [str(program), *wanted.command[1:]]
    ending = launch(Launch(command, shim, folder, settings, wanted.timeout_s), progress)
    logs = tuple(read_calls(path) for path in ending.logs)
    return Outcome(ending, logs, book, _error(wanted, ending, logs))


def rescue(folder: Path, place: Path) -> list[Path]:
    """Move the logs of a folder to where they stay, the largest first; return these places."""
    return keep(sorted(folder.glob("*.calls"), key=lambda path: -path.stat().st_size), place)


def keep(logs: Sequence[Path], place: Path) -> list[Path]:
    """Move logs to ``place``, ``place.2``, ...; return these places."""
    places = [place, *(place.with_name(f"{place.name}.{n}") for n in range(2, len(logs) + 1))]
    return [log.replace(each) for log, each in zip(logs, places, strict=False)]


def _infiniop(install: Install) -> Path:
    return next(path for path in install.libraries if path.name == "libinfiniop.so")


def _error(wanted: Wanted, ending: Ending, logs: Sequence[Calls]) -> GoldenctlError | None:
    program = wanted.command[0]
    if other := next((calls.other for calls in logs if calls.other), ""):
        message = (
            f"{program}: loads {other}, another InfiniCore than {_infiniop(wanted.install)}, "
            "which the trace was built for"
        )
        return MissingError(message, hint="name its install with --infini-root")
    if wrong := what_went_wrong(ending, program, timeout_s=wanted.timeout_s):
        return ProgramError(wrong)
    if not ending.states:
        return MissingError(f"{program}: the loader did not preload anything into it")
    if not logs:
        message = f"{program}: never launched an op of InfiniCore"
        return MissingError(message, hint="is its libinfiniop.so what the program computes with?")
    if failed := next((state for state in ending.states if state.error), None):
        error = failed.error
        message = f"{failed.pid}.calls: could not be written whole ({os.strerror(error)})"
        return UsageError(message, hint="write RUN to a larger disk, or trace less with --ops")
    if not any(call for calls in logs for call in calls.calls) and wanted.ops != frozenset():
        return MissingError(f"{program}: launched no op of InfiniCore of those asked for")
    return None
