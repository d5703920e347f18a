"""Where goldenctl keeps what it builds: the data folder and the cache folder."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from goldenctl.errors import MissingError, UsageError


def provisioned_prefix() -> Path:
    """Return where ``goldenctl infinicore install`` puts InfiniCore.

    In ``$GOLDENCTL_HOME``, or ``goldenctl`` under ``$XDG_DATA_HOME`` or ``~/.local/share``.
    """
    return _folder("GOLDENCTL_HOME", "XDG_DATA_HOME", ".local/share") / "infinicore-0.1.0"


def cache_folder() -> Path:
    """Return what may be deleted at any time: harnesses, random checkpoints, fingerprints.

    ``$GOLDENCTL_CACHE``, or ``goldenctl`` under ``$XDG_CACHE_HOME`` or ``~/.cache``. Raises
    MissingError where there is no home folder either.
    """
    return _folder("GOLDENCTL_CACHE", "XDG_CACHE_HOME", ".cache")


def made_once(out: Path, what: str, make: Callable[[], object]) -> Path:
    """Return ``out``, a folder of the cache, after ``make`` made it whole where it is not there.

    Another process may be faster. Raises UsageError, naming ``what`` it is for, where the cache
    cannot be written, and what ``make`` raises.
    """
    if out.is_dir():
        return out
    try:
        make()
    except (OSError, UsageError) as error:
        if out.is_dir():
            return out
        if isinstance(error, UsageError):
            raise
        message = f"{what}: {out} cannot be written: {error.strerror}"
        raise UsageError(message, hint="set GOLDENCTL_CACHE to another folder") from error
    return out


def harness_cache() -> Path:
    """Return the folder of built harnesses, one subfolder per key."""
    return cache_folder() / "harness"


def writable_harness_cache() -> Path:
    """Return the same, made and tried; raises MissingError where it cannot be written."""
    folder = harness_cache()
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        message = f"{folder}: cannot be written: {error.strerror}"
        raise MissingError(message, hint="set GOLDENCTL_CACHE to a folder that can be") from error
    return folder


def require_ours(path: Path) -> Path:
    """Return a path of the cache that is to be run, when no other user could have put it there.

    It and the folders above it, up to the cache folder, must belong to this user or to root, and
    be writable by nobody else. Raises MissingError saying which is not, and what to do.
    """
    cache = cache_folder()
    for each in (path, *(above for above in path.parents if above.is_relative_to(cache))):
        status = each.stat() if each == cache else each.lstat()  # the cache itself may be a link
        if status.st_uid not in (os.geteuid(), 0) or stat.S_ISLNK(status.st_mode):
            message = f"{each}: belongs to another user, or is a link: nothing is run from there"
            raise MissingError(message, hint="set GOLDENCTL_CACHE to a folder of your own")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"{each}: other users can write it: nothing is run from there"
            remedy = f"remove it, or run: chmod go-w {shlex.quote(str(each))}"
            raise MissingError(message, hint=remedy)
    return path


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder in ``$TMPDIR``, which goes afterwards.

    Raises MissingError where there is none, or no room in it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="goldenctl-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        refusal = no_room(error)
        if refusal is None:
            raise
        raise refusal from error


def no_room(error: OSError) -> MissingError | None:
    """Return the error for a temporary or a cached file that cannot be written.

    None for any other file. What a user named is written by atomic.py, which names it.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES):
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if error.filename is None and (full or "temporary directory" in (error.strerror or "")):
        hint = "free space there, or set TMPDIR to a folder that has some"
        return MissingError(f"{_temporary()}: {error.strerror}", hint=hint)
    for folder, variable in ((cache_folder(), "GOLDENCTL_CACHE"), (_temporary(), "TMPDIR")):
        if Path(str(error.filename)).is_relative_to(folder):
            hint = f"free space there, or set {variable} to another folder"
            return MissingError(f"{error.filename}: {error.strerror}", hint=hint)
    return None


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR", "/tmp"))


def home_install() -> Path | None:
    """Return where xmake puts InfiniCore, ``~/.infini``; None without a home folder."""
    try:
        return Path.home() / ".infini"
    except RuntimeError:
        return None


def _folder(own: str, xdg: str, fallback: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get(xdg, "")
    # The XDG specification says that a relative path is to be ignored.
    if Path(base).is_absolute():
        return Path(base) / "goldenctl"
    try:
        return Path.home() / fallback / "goldenctl"
    except RuntimeError as error:
        message = "there is no home folder"
        raise MissingError(message, hint=f"set {own} to a folder") from error
