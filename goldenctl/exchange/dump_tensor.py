"""One tensor of another program's dump, and how what is wrong with its file is said."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from goldenctl.errors import DamagedError, GoldenctlError, MissingError
from goldenctl.isolate import Refused, Worker, isolated
from goldenctl.model.safetensors_header import NAME_LIMIT

_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class DumpTensor:
    """A tensor of a dump. ``dtype`` is NumPy's name, ``bfloat16``, or what is not supported.

    ``read`` allocates and returns the values. ``problem`` is what to raise when the tensor is
    asked for, where its file is damaged there: it does no harm to the others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    where: str
    read: Callable[[], NDArray[Any]]
    problem: GoldenctlError | None = None


def unreadable(name: str, where: str, problem: GoldenctlError) -> DumpTensor:
    """Return a tensor of which nothing but the name is known."""

    def read() -> NDArray[Any]:
        raise problem

    return DumpTensor(name, "unreadable", (), where, read, problem)


def refuse_name(name: str, *, seen: bool) -> None:
    """Raise ValueError for a name that cannot be listed or named in a map."""
    if not name or len(name) > NAME_LIMIT or not name.isprintable() or seen:
        message = f"{name[:80]!r}: its name is empty, too long, unprintable, or there twice"
        raise ValueError(message)


def rehearse(path: Path, read: Callable[[], object]) -> None:
    """Read a file in a process of its own first, where a library that is not ours reads it.

    Raises what ``read`` raises, and DamagedError where it crashes, hangs or wants too much.
    """

    def rehearsal(_: Worker) -> bytes:
        read()
        return b""

    try:
        isolated(rehearsal, held_bytes=2 * path.stat().st_size)  # mapped, and read
    except Refused as error:
        message = f"{path}: not a usable dump: {error}"
        raise DamagedError(message) from error


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what reading a malformed file raises into one line that names it."""
    try:
        yield
    except PermissionError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    except _READ_ERRORS as error:
        message = f"{path}: not a usable dump: {error}"
        raise DamagedError(message) from error
