"""Owns the writing of golden and run files: allocate every tensor, fill bytes, seal, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from goldenctl import __version__
from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden import schema
from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.schema import SublayerInfo, TensorSpec

_LIBVER = ("v110", "v110")
_HASH_BLOCK_BYTES = 1 << 20
_PLACEHOLDER_SHA256 = "0" * 64


def hdf5_type(dtype: str) -> h5py.h5t.TypeID:
    """Return the little-endian HDF5 type; bfloat16 is a custom float that h5dump prints."""
    if dtype == "bfloat16":
        kind = h5py.h5t.IEEE_F16LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_ebias(127)
        return kind
    return h5py.h5t.py_create(DTYPES[dtype].numpy.newbyteorder("<"))


class GoldenWriter:
    """A file being written under a temporary name.

    Use as a context manager: leaving it without ``seal`` removes the temporary file and
    leaves whatever stood at ``path`` untouched. After construction every tensor has its
    byte offset (``offsets``), and any process may write to ``temporary_path`` there.
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
    ) -> None:
        self.path = path
        self.kind = kind
        self.tensors = {spec.name: spec for spec in tensors}
        self.temporary_path = path.with_name(f".{path.name}.{os.getpid()}.part")
        _check_space(path, sum(spec.nbytes for spec in tensors))
        try:
            self.offsets = self._allocate(dict(recipe), links, groups)
            self._descriptor = os.open(self.temporary_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self.temporary_path.unlink(missing_ok=True)
            raise _cannot_write(path, error) from error

    def _allocate(
        self, recipe: dict[str, Any], links: Mapping[str, str], groups: Sequence[str]
    ) -> dict[str, int]:
        with h5py.File(
            self.temporary_path,
            "w",
            libver=_LIBVER,
            alignment_threshold=1,
            alignment_interval=schema.ALIGNMENT_BYTES,
        ) as file:
            _set(file, "format", schema.FORMAT)
            _set(file, "format_version", schema.FORMAT_VERSION)
            _set(file, "kind", self.kind)
            _set(file, "tool_version", __version__)
            _set(file, "created_utc", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            _set(file, "recipe", json.dumps(recipe, sort_keys=True))
            for name in groups:
                group = file.require_group(name)
                _set(group, "time_ns", 0)
            offsets = {
                spec.name: _create(file, spec, order)
                for order, spec in enumerate(self.tensors.values())
            }
            for link, target in links.items():
                file[link] = file[target]
        return offsets

    def write(self, name: str, data: memoryview, at_byte: int = 0) -> None:
        """Write bytes of one tensor, ``at_byte`` bytes from its start."""
        spec = self.tensors[name]
        if at_byte + data.nbytes > spec.nbytes:
            msg = f"{name}: {at_byte} + {data.nbytes} bytes exceed {spec.nbytes}"
            raise ValueError(msg)
        try:
            _pwrite(self._descriptor, data, self.offsets[name] + at_byte)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a tensor's bytes as they stand in the file."""
        return _sha256_range(self._descriptor, self.offsets[name], self.tensors[name].nbytes)

    def seal(
        self,
        *,
        sublayers: Sequence[SublayerInfo] = (),
        digests: Mapping[str, str] | None = None,
        times_ns: Mapping[str, int] | None = None,
        recipe: Mapping[str, Any] | None = None,
        simulated: bool = False,
    ) -> None:
        """Store digests and times, mark the file complete, sync it and give it its name.

        Digests not given are computed from the file. ``recipe`` replaces the one stored at
        the start. Raises UsageError when the disk is full or the folder is not writable.
        """
        digests = {**self._missing_digests(digests or {}), **(digests or {})}
        try:
            with h5py.File(self.temporary_path, "r+", libver=_LIBVER) as file:
                for name in self.tensors:
                    dataset = file[name]
                    _modify(dataset, "sha256", digests[name])
                    _modify(dataset, "time_ns", (times_ns or {}).get(name, 0))
                for sublayer in sublayers:
                    _seal_sublayer(file[sublayer.name], sublayer)
                if recipe is not None:
                    _set(file, "recipe", json.dumps(dict(recipe), sort_keys=True))
                if simulated:
                    _set(file, "simulated", 1)
                _set(file, "content_sha256", content_digest(digests))
                _set(file, "complete", 1)
            os.fsync(self._descriptor)
            self.temporary_path.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _missing_digests(self, known: Mapping[str, str]) -> dict[str, str]:
        missing = [name for name in self.tensors if name not in known]
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(missing, pool.map(self.digest, missing), strict=True))

    def __enter__(self) -> GoldenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self.temporary_path.unlink(missing_ok=True)


def content_digest(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 over the sorted names and digests of all tensors."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _create(file: h5py.File, spec: TensorSpec, order: int) -> int:
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    folder, _, leaf = spec.name.rpartition("/")
    parent = file.require_group(folder)
    space = h5py.h5s.create_simple(spec.shape)
    dataset = h5py.Dataset(
        h5py.h5d.create(parent.id, leaf.encode(), hdf5_type(spec.dtype), space, dcpl=dcpl)
    )
    for axis, label in enumerate(spec.dims):
        dataset.dims[axis].label = label
    _set(dataset, "name", spec.name)
    _set(dataset, "dims", ",".join(spec.dims))
    _set(dataset, "role", spec.role)
    _set(dataset, "op", spec.op)
    _set(dataset, "order", order)
    _set(dataset, "sha256", _PLACEHOLDER_SHA256)
    _set(dataset, "time_ns", 0)
    offset = dataset.id.get_offset()
    if offset is None:
        msg = f"{file.filename}: HDF5 gave {spec.name} no file offset"
        raise DamagedError(msg)
    return int(offset)


def _seal_sublayer(group: h5py.Group, sublayer: SublayerInfo) -> None:
    _set(group, "time_ns", sublayer.time_ns)
    _set(group, "status", sublayer.status)
    if sublayer.failure is not None:
        _set(group, "failure", json.dumps(sublayer.failure, sort_keys=True))


def _attribute(value: str | int) -> np.generic:
    if isinstance(value, int):
        return np.int64(value)
    return np.bytes_(value.encode() or b"\0")


def _set(target: h5py.Group | h5py.Dataset, name: str, value: str | int) -> None:
    target.attrs[name] = _attribute(value)


def _modify(target: h5py.Dataset, name: str, value: str | int) -> None:
    attribute = h5py.h5a.open(target.id, name.encode())
    attribute.write(np.array(_attribute(value)))


def _pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    view = data.cast("B") if data.nbytes else memoryview(b"")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sha256_range(descriptor: int, offset: int, nbytes: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_HASH_BLOCK_BYTES, max(nbytes, 1))))
    while nbytes:
        block = buffer[: min(len(buffer), nbytes)]
        got = os.preadv(descriptor, [block], offset)
        if not got:
            msg = "a file ended before its last tensor did"
            raise DamagedError(msg)
        digest.update(block[:got])
        offset, nbytes = offset + got, nbytes - got
    return digest.hexdigest()


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(f"{path}: cannot be written: {reason}", hint="nothing was changed")
