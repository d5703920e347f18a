"""The writer of golden and run files: allocate every tensor, fill in bytes, seal, rename."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from goldenctl import __version__
from goldenctl.atomic import cannot_write, claim, part_path, remove_leftovers, sync
from goldenctl.digests import Hasher
from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden import schema
from goldenctl.golden.allocate import (
    LIBVER,
    Attributes,
    allocate,
    change_attributes,
    metadata_bytes,
    replace_attributes,
    tensor_attributes,
)
from goldenctl.golden.journal import Journal
from goldenctl.golden.room import Room
from goldenctl.golden.schema import (
    SublayerInfo,
    TensorSpec,
    content_digest,
    described,
    metadata_digest,
)
from goldenctl.golden.times import encode_times, now_utc, times_path

_HASH_BLOCK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WRITE_ERRORS = (OSError, RuntimeError)  # h5py raises RuntimeError when a close fails


class GoldenWriter:
    """A file being written under a temporary name.

    Use as a context manager: leaving it without ``seal`` removes the temporary file and
    leaves whatever stood at ``path`` untouched. After construction every tensor has its
    byte offset (``offsets``), and any process may write to ``temporary_path`` there.

    With a ``journal`` the unfinished file is the journal's: it is taken as it is where there
    is one, and stays when the writer is left without ``seal``. With a ``room`` the bytes are there
    already, and only their names are not.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str,
        recipe: Mapping[str, Any],
        tensors: Sequence[TensorSpec],
        links: Mapping[str, str],
        groups: Sequence[str],
        journal: Journal | None = None,
        room: Room | None = None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.tensors = {spec.name: spec for spec in tensors}
        self._journal = journal
        self.temporary_path = part_path(path) if journal is None else journal.file
        resumed = journal is not None and journal.start is not None
        created_utc = journal.start.created_utc if journal and journal.start else now_utc()
        laid_out = self.temporary_path.with_name("layout") if resumed else self.temporary_path
        self._root = _root_attributes(kind, recipe, created_utc)
        self._links = dict(links)
        self._groups: dict[str, Attributes] = {name: {"time_ns": 0} for name in groups}
        if room is not None:
            self.offsets = room.settle(self._root, tensors=tensors, links=links, groups=groups)
            self._open()
            return
        remove_leftovers(path)
        nbytes = 0 if resumed else sum(spec.nbytes for spec in tensors)
        _check_space(path, nbytes + metadata_bytes(self._root, tensors, groups))
        try:
            if journal is None:
                claim(path)
            self.offsets = allocate(
                laid_out,
                self._root,
                tensors=tensors,
                links=links,
                groups=groups,
            )
            if journal is not None and resumed:
                self._take_over(journal, laid_out)
            if not resumed:
                _reserve(self.temporary_path)
            self._open()
            if journal is not None and not resumed:
                os.fsync(self._descriptor)
                journal.begin(created_utc, self.offsets)
        except BaseException as error:
            laid_out.unlink(missing_ok=True)
            if isinstance(error, _WRITE_ERRORS):
                raise cannot_write(path, error) from error
            raise

    def _open(self) -> None:
        self._descriptor = os.open(self.temporary_path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # no leftover while this process lives

    def _take_over(self, journal: Journal, laid_out: Path) -> None:
        """Go on with the journal's file: its metadata becomes again that of a new file, for
        the process before may have died while it was sealed."""
        assert journal.start is not None
        if journal.start.offsets != self.offsets:
            msg = "its tensors lie elsewhere than they should"
            raise journal.damaged(msg)
        tensors = sorted((self.offsets[n], spec.nbytes) for n, spec in self.tensors.items())
        with laid_out.open("rb") as source, journal.file.open("r+b") as target:
            end = laid_out.stat().st_size
            at = 0
            for offset, nbytes in [*tensors, (end, 0)]:
                source.seek(at)
                target.seek(at)
                target.write(source.read(max(0, offset - at)))
                at = max(at, offset + nbytes)
            target.truncate(end)
            target.flush()
            os.fsync(target.fileno())
        laid_out.unlink()
        with journal.file.open("rb") as file:
            journal.check(
                lambda name: _digest_of_range(
                    file.fileno(), self.offsets[name], self.tensors[name].nbytes
                )
            )

    def write(self, name: str, data: memoryview, at_byte: int = 0) -> None:
        """Write bytes of one tensor, ``at_byte`` bytes from its start."""
        spec = self.tensors[name]
        if at_byte + data.nbytes > spec.nbytes:
            msg = f"{name}: {at_byte} + {data.nbytes} bytes exceed {spec.nbytes}"
            raise ValueError(msg)
        try:
            _pwrite(self._descriptor, data, self.offsets[name] + at_byte)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def clear(self) -> None:
        """Make the bytes of every tensor zero again, as in a file that was just allocated."""
        zeros = memoryview(bytes(_HASH_BLOCK_BYTES))
        for name, spec in self.tensors.items():
            for at_byte in range(0, spec.nbytes, len(zeros)):
                self.write(name, zeros[: spec.nbytes - at_byte], at_byte)

    def digest(self, name: str) -> str:
        """Return the digest of a tensor's bytes as they stand in the file."""
        return _digest_of_range(self._descriptor, self.offsets[name], self.tensors[name].nbytes)

    def sync(self) -> None:
        """Return when everything that any process has written is on the disk."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def seal(
        self,
        *,
        sublayers: Sequence[SublayerInfo] = (),
        digests: Mapping[str, str] | None = None,
        times_ns: Mapping[str, int] | None = None,
        iqr_ns: Mapping[str, int] | None = None,
        recipe: Mapping[str, Any] | None = None,
        simulated: bool = False,
    ) -> None:
        """Store digests and times, mark the file complete, sync it and give it its name.

        Digests not given are computed from the file. ``recipe`` replaces the one stored at
        the start. A golden's times go to a file beside it (times.py), a run's into the run.
        ``iqr_ns`` are a golden's spreads of times; a run's are in its recipe.
        Raises UsageError when the disk is full or the folder is not writable.
        """
        known = {**self._missing_digests(digests or {}), **(digests or {})}
        digests = {name: known[name] for name in self.tensors}
        root: dict[str, str | int] = {"content_digest": content_digest(digests)}
        if recipe is not None:
            root["recipe"] = _json(recipe)
        if simulated:
            root["simulated"] = 1
        beside = b""
        if self.kind == "golden":
            measured = {**(times_ns or {}), **{each.name: each.time_ns for each in sublayers}}
            beside = encode_times(str(root["content_digest"]), measured, iqr_ns or {})
            times_ns, sublayers = {}, [replace(each, time_ns=0) for each in sublayers]
        times_ns = {name: (times_ns or {}).get(name, 0) for name in self.tensors}
        self._root |= root
        self._groups |= {each.name: _sublayer_attributes(each) for each in sublayers}
        root["metadata_digest"] = self._metadata_digest(digests, times_ns)
        root["complete"] = 1
        try:
            with h5py.File(self.temporary_path, "r+", libver=LIBVER, locking=False) as file:
                for name in self.tensors:
                    dataset = h5py.h5d.open(file.id, name.encode())
                    change_attributes(dataset, {"digest": digests[name]})
                    if times_ns[name]:  # 0 is what it was made with
                        change_attributes(dataset, {"time_ns": times_ns[name]})
                for sublayer in sublayers:
                    group = h5py.h5g.open(file.id, sublayer.name.encode())
                    replace_attributes(group, _sublayer_attributes(sublayer))
                replace_attributes(h5py.h5g.open(file.id, b"/"), root)
            os.fsync(self._descriptor)
            self._write_beside(beside)
            self.temporary_path.replace(self.path)
            if beside:
                self._temporary_times.replace(times_path(self.path))
            sync(self.path.parent)
            if self._journal is not None:
                self._journal.remove()
        except _WRITE_ERRORS as error:
            raise cannot_write(self.path, error) from error

    def _metadata_digest(self, digests: Mapping[str, str], times_ns: Mapping[str, int]) -> str:
        """Digest what the file will say of itself, as a reader will find it."""
        attributes: dict[str, Attributes] = {"/": self._root, **self._groups}
        for order, (name, spec) in enumerate(self.tensors.items()):
            stored = {**tensor_attributes(spec, order), "digest": digests[name]}
            stored["time_ns"] = times_ns[name]
            attributes[name] = described(spec.dtype, spec.shape, stored)
        return metadata_digest(attributes, self._links)

    def _missing_digests(self, known: Mapping[str, str]) -> dict[str, str]:
        missing = [name for name in self.tensors if name not in known]
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(missing, pool.map(self.digest, missing), strict=True))

    @property
    def _temporary_times(self) -> Path:
        return part_path(times_path(self.path))

    def _write_beside(self, data: bytes) -> None:
        """Write the times while nothing has its name yet: a full disk then loses nothing."""
        if data:
            self._temporary_times.write_bytes(data)

    def __enter__(self) -> GoldenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._temporary_times.unlink(missing_ok=True)
        if self._journal is None:
            self.temporary_path.unlink(missing_ok=True)


def _root_attributes(
    kind: str, recipe: Mapping[str, Any], created_utc: str
) -> dict[str, str | int]:
    return {
        "format": schema.FORMAT,
        "format_version": schema.FORMAT_VERSION,
        "kind": kind,
        "tool_version": __version__,
        "created_utc": created_utc if kind == "run" else "",
        "recipe": _json(recipe),
    }


def _sublayer_attributes(sublayer: SublayerInfo) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"time_ns": sublayer.time_ns, "status": sublayer.status}
    if sublayer.failure is not None:
        attributes["failure"] = _json(sublayer.failure)
    return attributes


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True)


def _pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    view = data.cast("B") if data.nbytes else memoryview(b"")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _reserve(path: Path) -> None:
    """Set the whole file's blocks aside, so that several threads can write past the page cache
    at once, which in a file with holes wait for each other.

    OSError when the disk is full. Where the file system cannot do it nothing happens; os's own
    function would write zeros then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate64"):
        return
    with path.open("r+b") as file:
        size = ctypes.c_int64(path.stat().st_size)
        failed = libc.fallocate64(file.fileno(), 0, ctypes.c_int64(0), size)
    if failed and ctypes.get_errno() in _FULL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _digest_of_range(descriptor: int, offset: int, nbytes: int) -> str:
    hasher = Hasher()
    buffer = memoryview(bytearray(min(_HASH_BLOCK_BYTES, max(nbytes, 1))))
    while nbytes:
        block = buffer[: min(len(buffer), nbytes)]
        got = os.preadv(descriptor, [block], offset)
        if not got:
            msg = "a file ended before its last tensor did"
            raise DamagedError(msg)
        hasher.update(block[:got])
        offset, nbytes = offset + got, nbytes - got
    return hasher.digest


def _check_space(path: Path, needed_bytes: int) -> None:
    if not path.parent.is_dir():
        msg = f"{path}: folder {path.parent} does not exist"
        raise UsageError(msg, hint="create it or choose another path")
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < needed_bytes:
        msg = f"{path}: {needed_bytes:,} bytes are needed, the disk has {free_bytes:,} free"
        raise UsageError(
            msg,
            hint="free space, or record fewer layers, taps or tokens",
        )
