"""Resumable recordings and replays: the unfinished file under a name of its own, and beside
it a journal of what is finished in it.

``NAME.resume/`` holds the unfinished ``file``, the ``journal`` (JSON, one line for the start and
one for each finished sublayer) and up to two ``state`` files of whoever writes. A line is
written only after what it speaks of is on the disk, and is on the disk before the next one is
begun; a last line that was cut off counts for nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from goldenctl import __version__
from goldenctl import digests as algorithms
from goldenctl.errors import DamagedError, Interrupted, UsageError

VERSION = 2  # since its digests name their algorithm
_LOCK_WAIT_S = 5.0


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: what is being made, and where its tensors lie."""

    journal: int
    tool: str
    created_utc: str
    recipe: dict[str, Any]
    offsets: dict[str, int]


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One finished sublayer: digests of its tensors by name, and what the writer adds.

    ``state`` is the digest of the state file that belongs to it, if any; ``count`` is how many
    sublayers it stands for. ``withdrawn`` says that it is not finished after all.
    """

    done: str
    digests: dict[str, str]
    rest: dict[str, Any]
    state: str = ""
    count: int = 1
    withdrawn: bool = False


class Journal:
    """The journal of one file that is being written; a context manager.

    While it is open no other process may write the same file, nor while a process that was given
    the descriptor ``lock`` lives. Left by Ctrl-C, it raises an
    Interrupted that says what is kept. Raises UsageError when the recipe of what is
    there is another, DamagedError when it is not what a journal of ours would be.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any]) -> None:
        self.path = path
        self.folder = path.with_name(f"{path.name}.resume")
        self.file = self.folder / "file"
        self.start: Start | None = None
        self.finished: dict[str, Done] = {}
        self._recipe: dict[str, Any] = json.loads(json.dumps(dict(recipe)))
        self._journal = self.folder / "journal"
        self._stream = -1
        self.lock = -1

    def __enter__(self) -> Journal:
        self.folder.mkdir(exist_ok=True)
        self.lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._wait_for_lock()
            if self._journal.exists() and not (self.path.exists() and not self.file.exists()):
                self._read()
        except BaseException:
            os.close(self.lock)
            raise
        return self

    def _wait_for_lock(self) -> None:
        """A backend of a goldenctl that was killed may still be writing for a moment."""
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    msg = f"{self.path}: another goldenctl, or a backend it started, is writing it"
                    raise UsageError(msg) from error
                time.sleep(0.05)
            else:
                return

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._stream >= 0:
            os.close(self._stream)
        os.close(self.lock)
        if isinstance(error, KeyboardInterrupt):
            raise self._interrupted() from error

    def _interrupted(self) -> Interrupted:
        if not self.count:
            msg = "interrupted; no finished sublayer is kept yet"
            return Interrupted(msg, hint="the same command begins again")
        what = (
            "1 finished sublayer is" if self.count == 1 else f"{self.count} finished sublayers are"
        )
        msg = f"interrupted; {what} kept in {self.folder}"
        return Interrupted(msg, hint="the same command goes on from there")

    @property
    def count(self) -> int:
        """How many sublayers are finished."""
        return sum(entry.count for entry in self.finished.values())

    def begin(self, created_utc: str, offsets: Mapping[str, int]) -> None:
        """Note that the file was laid out; it must be on the disk."""
        start = Start(VERSION, __version__, created_utc, self._recipe, dict(offsets))
        temporary = self.folder / "journal.part"
        temporary.write_bytes(msgspec.json.encode(start) + b"\n")
        self._stream = os.open(temporary, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.fsync(self._stream)
        temporary.replace(self._journal)
        os.fsync(self.lock)
        self.start = start

    def add(
        self,
        name: str,
        digests: Mapping[str, str],
        *,
        rest: Mapping[str, Any],
        state: bytes | memoryview = b"",
        count: int = 1,
    ) -> None:
        """Note that a sublayer, or ``count`` of them, is finished; its tensors must be on the disk.

        ``state`` replaces the state before it.
        """
        digest = self._write_state(state) if state else ""
        entry = Done(name, dict(digests), dict(rest), digest, count)
        self._append(entry)
        self.finished[name] = entry

    def withdraw(self, name: str) -> None:
        """Note that a sublayer is not finished after all."""
        self._append(Done(name, {}, {}, withdrawn=True))
        del self.finished[name]

    def _append(self, entry: Done) -> None:
        os.write(self._stream, msgspec.json.encode(entry) + b"\n")
        os.fsync(self._stream)

    def state(self) -> bytes:
        """Return the state of the sublayer that was finished last; DamagedError if it is lost."""
        last = list(self.finished.values())[-1]
        path = self._state_path(len(self.finished))
        content = path.read_bytes() if path.exists() else b""
        if not (last.state and algorithms.matches(last.state, content)):
            msg = f"{path.name} does not match its digest"
            raise self.damaged(msg)
        return content

    def check(self, digest: Callable[[str], str]) -> None:
        """Hold every finished tensor against its digest; DamagedError when one differs."""
        for entry in self.finished.values():
            for name, expected in entry.digests.items():
                if digest(name) != expected:
                    msg = f"{name} in {self.file} does not match its digest"
                    raise self.damaged(msg)

    def forget_finished(self) -> bool:
        """Whether only the folder is left of a file that has its name; it is then removed."""
        left = self._journal.exists() and not self.file.exists()
        if left:
            self.remove()
        return left

    def remove(self) -> None:
        """Forget everything: the file has its name."""
        shutil.rmtree(self.folder)

    def _state_path(self, count: int) -> Path:
        """Two take turns, so that the one of the last line is there while the next is written."""
        return self.folder / f"state.{count % 2}"

    def _write_state(self, state: bytes | memoryview) -> str:
        path = self._state_path(len(self.finished) + 1)
        with path.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        return algorithms.of_bytes(state)

    def _read(self) -> None:
        content = self._journal.read_bytes()
        lines = content.split(b"\n")[:-1]
        try:
            start = msgspec.json.decode(lines[0], type=Start)
        except (IndexError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
            msg = "it does not start as a journal does"
            raise self.damaged(msg) from error
        self._check_start(start)
        kept = len(lines[0]) + 1
        for line in lines[1:]:
            try:
                entry = msgspec.json.decode(line, type=Done)
            except (UnicodeDecodeError, RecursionError, msgspec.MsgspecError):
                break  # the machine went down while it was written
            if entry.withdrawn:
                self.finished.pop(entry.done, None)
            else:
                self.finished[entry.done] = entry
            kept += len(line) + 1
        self._stream = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._stream, kept)
        self.start = start

    def _check_start(self, start: Start) -> None:
        hint = f"give the same options, or delete {self.folder} to start again"
        if (start.journal, start.tool) != (VERSION, __version__):
            msg = f"{self.folder}: was begun by goldenctl {start.tool}, this is {__version__}"
            raise UsageError(msg, hint=hint)
        difference = first_difference(start.recipe, self._recipe)
        if difference is not None:
            key, before, now = difference
            msg = f"{self.folder}: was begun with {key} {before!r}, now it is {now!r}"
            raise UsageError(msg, hint=hint)
        if not self.file.is_file():
            msg = f"{self.file.name} is not there"
            raise self.damaged(msg)

    def damaged(self, what: str) -> DamagedError:
        """Return the error for a journal and a file that do not fit."""
        msg = f"{self._journal}: {what}"
        return DamagedError(msg, hint=f"delete {self.folder} to start again")


def first_difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the dotted name of the first value in which two JSON values differ, and both."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            inner = f"{key}.{name}" if key else name
            found = first_difference(before.get(name), now.get(name), inner)
            if found is not None:
                return found
        return None
    return None if before == now else (key, before, now)
