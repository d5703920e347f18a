"""How a built folder gets to its place: one builder at a time, whole or not at all.

While a build runs a lock, a scratch folder and a log are beside the place. What a killed build
left of them the next one takes away; their names are goldenctl's own, so nothing else goes.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from goldenctl.atomic import sync
from goldenctl.errors import MissingError
from goldenctl.infini.build import CommandFailed, Progress, silent


@contextmanager
def sole_builder(place: Path, progress: Progress = silent) -> Iterator[None]:
    """Be the only process that builds ``place``; take away what killed ones left beside it."""
    with exclusive(place.with_name(f".{place.name}.goldenctl-lock"), progress):
        for left in place.parent.glob(f"{glob.escape(_scratch_prefix(place))}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


@contextmanager
def exclusive(path: Path, progress: Progress = silent) -> Iterator[None]:
    """Hold the lock file ``path``, which goes afterwards; waits for another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with os.fdopen(_opened(path), "r+") as file:
            _lock(file, path, progress)
            # Whoever held the lock has removed the file meanwhile: a third process may have
            # made, and locked, a new one.
            if not _is_at(path, file):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of ``place``, which goes afterwards."""
    with tempfile.TemporaryDirectory(
        prefix=_scratch_prefix(place), dir=place.parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextmanager
def log_beside(place: Path) -> Iterator[Path]:
    """Yield where a build of ``place`` logs; the log stays only where an error names it."""
    log = place.with_name(f"{place.name}.goldenctl-build.log")
    log.unlink(missing_ok=True)
    try:
        yield log
    except CommandFailed:
        raise
    except BaseException:
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


def put(built: Path, place: Path) -> None:
    """Move the folder ``built`` out of its scratch folder to ``place``, when it is on the disk.

    What stands at ``place`` goes into the scratch folder, and away with it.
    """
    for path in sorted(built.rglob("*")):
        if path.is_file():
            _sync_file(path)
        else:
            sync(path)
    sync(built)
    if place.exists():
        place.rename(built.with_name("replaced"))
    built.rename(place)
    sync(place.parent)


def _scratch_prefix(place: Path) -> str:
    return f".{place.name}.goldenctl-scratch-"


def _opened(path: Path) -> int:
    """Open a lock file, new or old; a link that somebody put there is not followed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"{path}: cannot be opened as a lock: {error.strerror}"
        raise MissingError(message, hint="remove it, or choose a folder of your own") from error


def _lock(file: TextIO, path: Path, progress: Progress) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress(f"waiting for another process that holds {path}")
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
