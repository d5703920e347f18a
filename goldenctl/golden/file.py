"""Owns the reading of golden and run files: everything is checked, then the file is closed.

A file is untrusted input: only hard links to contiguous datasets of known types are
accepted, every attribute has a fixed length, and sizes are checked before use. Tensor
bytes are mapped without the HDF5 library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden import schema
from goldenctl.golden.allocate import hdf5_type
from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.schema import SublayerInfo, TensorInfo, content_digest
from goldenctl.golden.times import read_times

_MAX_OBJECTS = 1_000_000
_MAX_DEPTH = 12
_MAX_TEXT_BYTES = 64 << 20
_MAX_RANK = 8


@dataclass(frozen=True)
class GoldenFile:
    """A golden or run file, parsed. Holds no open handle; ``map`` maps a tensor on demand.

    ``tensors`` and ``sublayers`` are in execution order; ``aliases`` maps each further hard
    link to the tensor's own name. ``content_sha256`` is one digest over all tensor digests.
    """

    path: Path
    kind: str
    recipe: dict[str, Any]
    simulated: bool
    format_version: int
    tool_version: str
    created_utc: str
    content_sha256: str
    tensors: dict[str, TensorInfo] = field(repr=False)
    aliases: dict[str, str] = field(repr=False)
    sublayers: dict[str, SublayerInfo] = field(repr=False)

    def info(self, name: str) -> TensorInfo:
        """Return a tensor by its own name or by a link to it.

        Raises UsageError, naming the nearest names, when there is none.
        """
        info = self.tensors.get(self.aliases.get(name, name))
        if info is None:
            msg = f"{self.path}: there is no tensor {name}"
            raise UsageError(msg, hint="goldenctl inspect lists them")
        return info

    def map(self, name: str) -> NDArray[Any]:
        """Map a tensor read-only; bfloat16 comes as ``ml_dtypes.bfloat16``.

        Raises DamagedError when the file has become shorter than it was.
        """
        info = self.info(name)
        dtype = DTYPES[info.dtype].numpy
        if not info.nbytes:
            return np.empty(info.shape, dtype)
        try:
            return np.memmap(self.path, dtype, mode="r", offset=info.offset, shape=info.shape)
        except (OSError, ValueError) as error:
            msg = f"{self.path}: {name} cannot be mapped: {error}"
            raise DamagedError(msg) from error


def open_golden(path: Path, *, kind: str | None = None) -> GoldenFile:
    """Parse and check a golden or run file.

    Raises UsageError when there is no such file or it is not of ``kind``, DamagedError when
    it is not a complete goldenctl file.
    """
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "there is no such file"
        msg = f"{path}: {what}"
        raise UsageError(msg)
    try:
        with h5py.File(path, "r", locking=False) as file:
            golden = _parse(path, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        msg = f"{path}: not a usable golden or run file: {error}"
        raise DamagedError(msg, hint="record or replay it again") from error
    if kind is not None and golden.kind != kind:
        msg = f"{path}: expected a {kind} file, got a {golden.kind} file"
        raise UsageError(msg)
    return _with_times(golden) if golden.kind == "golden" else golden


def _with_times(golden: GoldenFile) -> GoldenFile:
    """Add what was measured while a golden was recorded; a run holds its own times."""
    times = read_times(golden.path, golden.content_sha256)
    known = times.time_ns
    return replace(
        golden,
        created_utc=times.created_utc,
        tensors={n: replace(i, time_ns=known.get(n, 0)) for n, i in golden.tensors.items()},
        sublayers={n: replace(i, time_ns=known.get(n, 0)) for n, i in golden.sublayers.items()},
    )


def _parse(path: Path, file: h5py.File) -> GoldenFile:
    if _text(file, "format", "") != schema.FORMAT:
        msg = "root attribute format is not 'goldenctl'"
        raise ValueError(msg)
    version = _number(file, "format_version", 0)
    if version != schema.FORMAT_VERSION:
        msg = f"format version {version} is not supported, expected {schema.FORMAT_VERSION}"
        raise ValueError(msg)
    if _number(file, "complete", 0) != 1:
        msg = "the file was never completed"
        raise ValueError(msg)
    kind = _text(file, "kind", "")
    if kind not in schema.KINDS:
        msg = f"kind is {kind!r}, expected one of {schema.KINDS}"
        raise ValueError(msg)
    recipe = _json_object(file, "recipe")
    tensors, aliases, sublayers = _read_tree(file, path.stat().st_size)
    content_sha256 = _text(file, "content_sha256")
    if content_sha256 != content_digest({info.name: info.sha256 for info in tensors}):
        msg = "content_sha256 is not that of the tensors' digests: some are missing or changed"
        raise ValueError(msg)
    return GoldenFile(
        path=path,
        kind=kind,
        recipe=recipe,
        simulated=_number(file, "simulated", 0) == 1,
        format_version=version,
        tool_version=_text(file, "tool_version", ""),
        created_utc=_text(file, "created_utc", ""),
        content_sha256=content_sha256,
        tensors={info.name: info for info in sorted(tensors, key=lambda info: info.order)},
        aliases=aliases,
        sublayers=_in_execution_order(sublayers, tensors),
    )


def _read_tree(
    file: h5py.File, file_bytes: int
) -> tuple[list[TensorInfo], dict[str, str], dict[str, SublayerInfo]]:
    tensors: dict[str, TensorInfo] = {}
    aliases: dict[str, str] = {}
    sublayers: dict[str, SublayerInfo] = {}
    addresses: dict[str, int] = {}
    for name, item in _walk(file):
        if isinstance(item, h5py.Group):
            if _is_sublayer(name):
                sublayers[name] = _sublayer(name, item)
            continue
        info = _tensor(item, file_bytes)
        addresses.setdefault(info.name, _address(item))
        if addresses[info.name] != _address(item):
            msg = f"{name}: two datasets claim the name {info.name}"
            raise ValueError(msg)
        if info.name == name:
            tensors[name] = info
        else:
            aliases[name] = info.name
    orphans = sorted(set(addresses) - set(tensors))
    if orphans:
        msg = f"{orphans[0]}: a link names this tensor, but it is not there"
        raise ValueError(msg)
    _refuse_overlaps(list(tensors.values()))
    return list(tensors.values()), aliases, sublayers


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield (path, object) for every hard link; anything else is refused."""
    stack: list[tuple[str, h5py.Group]] = [("", file)]
    seen_groups = {_address(file)}
    count = 0
    while stack:
        prefix, group = stack.pop()
        for key in group:
            count += 1
            name = f"{prefix}/{key}" if prefix else key
            if count > _MAX_OBJECTS or name.count("/") > _MAX_DEPTH:
                msg = f"{name}: more objects or deeper groups than a golden has"
                raise ValueError(msg)
            link = group.id.links.get_info(key.encode())
            if link.type != h5py.h5l.TYPE_HARD:
                msg = f"{name}: soft and external links are not allowed"
                raise ValueError(msg)
            item = group[key]
            if isinstance(item, h5py.Group):
                if _address(item) in seen_groups:
                    msg = f"{name}: a group is linked twice"
                    raise ValueError(msg)
                seen_groups.add(_address(item))
                stack.append((name, item))
            elif not isinstance(item, h5py.Dataset):
                msg = f"{name}: neither a group nor a dataset"
                raise ValueError(msg)
            yield name, item


def _tensor(dataset: h5py.Dataset, file_bytes: int) -> TensorInfo:
    name = dataset.name
    plist = dataset.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count():
        msg = f"{name}: storage is not contiguous in this file"
        raise ValueError(msg)
    dtype = _dtype_name(dataset.id.get_type())
    if dtype is None or not isinstance(dataset.shape, tuple) or len(dataset.shape) > _MAX_RANK:
        msg = f"{name}: its type or shape is none that a golden holds"
        raise ValueError(msg)
    shape = tuple(int(size) for size in dataset.shape)
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    offset = dataset.id.get_offset()
    if nbytes and (offset is None or offset + nbytes > file_bytes):
        msg = f"{name}: {nbytes} bytes at offset {offset} exceed the file's end"
        raise ValueError(msg)
    role = _text(dataset, "role")
    dims = tuple(_text(dataset, "dims").split(","))
    if role not in schema.ROLES or len(dims) != len(shape):
        msg = f"{name}: role {role!r} or dims {dims} do not fit shape {shape}"
        raise ValueError(msg)
    return TensorInfo(
        name=_text(dataset, "name"),
        dtype=dtype,
        shape=shape,
        dims=dims,
        role=role,
        op=_text(dataset, "op"),
        order=_number(dataset, "order"),
        offset=int(offset or 0),
        nbytes=nbytes,
        sha256=_text(dataset, "sha256"),
        time_ns=_number(dataset, "time_ns"),
    )


def _sublayer(name: str, group: h5py.Group) -> SublayerInfo:
    failure = _json_object(group, "failure") if "failure" in group.attrs else None
    status = _text(group, "status", "ok")
    if status not in ("ok", "failed") or (status == "failed") != (failure is not None):
        msg = f"{name}: status {status!r} and its failure do not fit"
        raise ValueError(msg)
    return SublayerInfo(name, _number(group, "time_ns", 0), status, failure)


def _is_sublayer(name: str) -> bool:
    """Whether a group is a sublayer: not ``layers``, ``layers/NN``, or one of its folders."""
    parts = schema.short_name(name).split(".")
    return len(parts) == (3 if parts[0] == "layers" else 1) and parts[0] != ""


def _in_execution_order(
    sublayers: dict[str, SublayerInfo], tensors: list[TensorInfo]
) -> dict[str, SublayerInfo]:
    first: dict[str, int] = {}
    for info in tensors:
        group = info.name.rpartition("/")[0]
        first[group] = min(first.get(group, info.order), info.order)
    names = sorted(sublayers, key=lambda name: (first.get(name, len(tensors)), name))
    return {name: sublayers[name] for name in names}


def _refuse_overlaps(tensors: list[TensorInfo]) -> None:
    end, before = 0, ""
    for info in sorted(tensors, key=lambda info: info.offset):
        if info.nbytes and info.offset < end:
            msg = f"{info.name}: its bytes overlap those of {before}"
            raise ValueError(msg)
        if info.nbytes:
            end, before = info.offset + info.nbytes, info.name


def _dtype_name(kind: h5py.h5t.TypeID) -> str | None:
    return next((name for name in DTYPES if kind.equal(hdf5_type(name))), None)


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _text(item: h5py.Group | h5py.Dataset, key: str, default: str | None = None) -> str:
    """Read a scalar fixed-length text attribute."""
    if key not in item.attrs and default is not None:
        return default
    attribute = h5py.h5a.open(item.id, key.encode())
    kind = attribute.get_type()
    is_text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    if not is_text or attribute.shape != () or kind.get_size() > _MAX_TEXT_BYTES:
        msg = f"{item.name}: attribute {key} is not a short fixed-length text"
        raise ValueError(msg)
    value = np.empty((), f"S{kind.get_size()}")
    attribute.read(value)
    return bytes(value[()]).decode()


def _number(item: h5py.Group | h5py.Dataset, key: str, default: int | None = None) -> int:
    """Read a scalar 64-bit integer attribute."""
    if key not in item.attrs and default is not None:
        return default
    attribute = h5py.h5a.open(item.id, key.encode())
    if attribute.shape != () or not attribute.get_type().equal(h5py.h5t.STD_I64LE):
        msg = f"{item.name}: attribute {key} is not a 64-bit integer"
        raise ValueError(msg)
    value = np.empty((), np.int64)
    attribute.read(value)
    return int(value)


def _json_object(item: h5py.Group, key: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(item, key))
    except (json.JSONDecodeError, RecursionError) as error:
        msg = f"{item.name}: attribute {key} is not JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"{item.name}: attribute {key} is not a JSON object"
        raise ValueError(msg)
    return value
