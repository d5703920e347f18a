"""The exceptions that a user can meet; each prints as one line and carries its exit code."""

from __future__ import annotations

import errno
import importlib.util
from pathlib import Path

EXIT_OK = 0
EXIT_BEYOND_TOLERANCE = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_DAMAGED = 4
EXIT_INTERRUPTED = 130


class GoldenctlError(Exception):
    """Something the user can act on.

    ``message`` says what failed, where, and what was expected and found; ``hint`` says
    what to do next. ``str()`` is one line: control characters of untrusted names are
    escaped, so a hostile file cannot write to the terminal.
    """

    exit_code = EXIT_USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        line = f"{self.message}; {self.hint}" if self.hint else self.message
        return printable(line)


class UsageError(GoldenctlError):
    """The command was called wrongly."""


class MissingError(GoldenctlError):
    """Something needed is not there: InfiniCore, a compiler, torch, a checkpoint."""

    exit_code = EXIT_MISSING


class Interrupted(GoldenctlError):  # noqa: N818 - it is no error
    """Ctrl-C ended something that can be resumed."""

    exit_code = EXIT_INTERRUPTED


class DamagedError(GoldenctlError):
    """A file is damaged, hostile, or does not match the other file of the pair."""

    exit_code = EXIT_DAMAGED


# What a system call says where the machine, not a file, is why it fails.
_OF_MACHINE = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.EPERM, errno.ENOSYS)


def refused_by_machine(error: OSError, what: str) -> MissingError | None:
    """Return the error for a system call that this machine refuses: for want of memory,
    processes, open files or permission. None where ``what`` itself may be why."""
    if error.errno == errno.EACCES:
        return MissingError(f"{what}: {error.strerror}", hint="see who may read it")
    if error.errno not in _OF_MACHINE:
        return None
    hint = "see ulimit -a, and how much memory is free"
    return MissingError(f"{what}: this machine refuses: {error.strerror}", hint=hint)


def why_no_file(path: Path) -> str:
    """Say what is at a path where a file was expected."""
    if path.is_dir():
        return "is a folder, expected a file"
    return "is a pipe or a device, expected a file" if path.exists() else "there is no such file"


def require_torch(what: str) -> None:
    """Raise MissingError, naming ``what`` needs it, unless torch is installed."""
    if importlib.util.find_spec("torch") is None:
        message = f"{what}: the torch package is not installed"
        raise MissingError(message, hint="run: pip install 'goldenctl[record]'")


def printable(text: str) -> str:
    """Return ``text`` as one line with every unprintable character escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
