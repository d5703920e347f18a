"""Files and folders that are whole or not there: a temporary name, a sync, then the rename.

A temporary file is ``.NAME.PROCESS.part``, or ``.NAME.TOKEN.PROCESS.part`` where several threads
may write one name at once. What a killed process left is known by its number and removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goldenctl.errors import UsageError

_PART = re.compile(r"\..+\.([0-9]{1,10})\.part")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there gets its name when the block ends well.

    Raises UsageError with the system's reason; what stood at ``path`` is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a small file whole; what killed writers of it left is removed.

    Raises UsageError with the system's reason; what stood at ``path`` is then untouched.
    """
    remove_leftovers(path)
    with whole_file(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def write_out(path: Path, content: bytes | str) -> None:
    """Write what a user named: text as UTF-8, whole where it is a file.

    What is not a regular file (a pipe, /dev/stdout) is written as it stands. Raises UsageError.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if not path.exists() or path.is_file():
        write_whole(path, data)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, which gets that name when the block ends well.

    ``out`` must not exist, or be an empty folder; raises UsageError when it is in use. The
    folders above it are made.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        message = f"{out}: exists already"
        raise UsageError(message, hint="name a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)
        yield partial
        partial.replace(out)  # replaces an empty folder, fails on any other
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def part_path(path: Path) -> Path:
    """Return the temporary name of a file that only one thread of this process writes."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def claim(path: Path) -> Path:
    """Make this process's ``part_path`` of ``path``, and return it.

    What processes that are no more left is taken away. Raises UsageError when another one is
    writing ``path`` now; OSError as it comes.
    """
    temporary = part_path(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # where folders have no locks, two may both begin
            fcntl.flock(folder, fcntl.LOCK_EX)
        remove_leftovers(path)
        for other in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if other != temporary and _PART.fullmatch(other.name):
                process = other.name.split(".")[-2]
                message = f"{path}: another goldenctl (process {process}) is writing it"
                raise UsageError(message, hint="nothing was changed; wait for it to end")
        temporary.touch()
    finally:
        os.close(folder)
    return temporary


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files that processes left which are no more."""
    if not folder.is_dir():
        return []
    found = ((path, _PART.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [path for path, match in found if match and _left(path, int(match[1]))]


def remove_leftovers(path: Path, *, of_all: bool = False) -> None:
    """Remove what processes that are no more left of writing ``path``, or any file beside it,
    where that is allowed."""
    with contextlib.suppress(OSError):
        for part in leftovers(path.parent):
            if of_all or part.name.startswith(f".{path.name}."):
                part.unlink(missing_ok=True)


def cannot_write(path: Path, error: BaseException) -> UsageError:
    """Return the error for a file that could not be written, with the system's reason."""
    said = getattr(error, "strerror", None) or str(error)
    of_hdf5 = re.search(r"error message = '([^']+)'", said)
    reason = of_hdf5[1] if of_hdf5 else said
    return UsageError(f"{path}: cannot be written: {reason}", hint="nothing was changed")


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _left(path: Path, process: int) -> bool:
    """Whether no process writes a temporary file: the one that it is named after is gone, and
    none on another machine or in another container holds it."""
    if _alive(process):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
