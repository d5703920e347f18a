"""Extraction of plain records from an HDF5 file that nobody vouches for.

The HDF5 library crashes and hangs on damaged files, so it sees one only in a process of
its own (isolate.py), which hands back what it found: names, types, places and attributes.
Nothing here knows what a golden means; file.py judges the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.golden.allocate import hdf5_type
from goldenctl.isolate import Worker, isolated

Attributes = dict[str, str | int]
TEXT, NUMBER = "text", "number"

ROOT = {
    **dict.fromkeys(("format", "kind", "tool_version", "created_utc", "recipe"), TEXT),
    **dict.fromkeys(("content_digest", "metadata_digest"), TEXT),
    **dict.fromkeys(("content_sha256", "metadata_sha256"), TEXT),  # of format version 1
    **dict.fromkeys(("format_version", "complete", "simulated"), NUMBER),
}
GROUP = {"time_ns": NUMBER, "status": TEXT, "failure": TEXT}
DATASET = {
    **dict.fromkeys(("name", "dims", "role", "op", "digest", "sha256"), TEXT),
    **dict.fromkeys(("order", "time_ns"), NUMBER),
}

_MAX_OBJECTS = 1_000_000
_MAX_DEPTH = 12
_MAX_RANK = 8
_MAX_TEXT_BYTES = 64 << 20
_OBJECTS_PER_SIGN_OF_LIFE = 256


class Dataset(msgspec.Struct, frozen=True):
    """A contiguous dataset: every path to it, and where its bytes are (None: nowhere)."""

    paths: list[str]
    dtype: str
    shape: tuple[int, ...]
    offset: int | None
    attributes: Attributes


class Tree(msgspec.Struct, frozen=True):
    """Everything of a file that a golden may hold, and nothing else is in it."""

    root: Attributes
    groups: dict[str, Attributes]
    datasets: list[Dataset]


def read_tree(path: Path, file_bytes: int) -> Tree:
    """Extract the tree of the file ``path`` of ``file_bytes`` bytes in a process of its own.

    Raises isolate.Refused for whatever is not a plain tree of contiguous datasets of known
    types and hard links, and where the HDF5 library crashes, hangs or wants too much memory.
    """
    answer = isolated(partial(_extract, path, file_bytes))
    return msgspec.msgpack.decode(answer, type=Tree)


def read_root(path: Path) -> Attributes:
    """Extract what a file says of itself, the attributes of its root; raises as read_tree does."""
    answer = isolated(partial(_extract_root, path, path.stat().st_size))
    return msgspec.msgpack.decode(answer, type=Attributes)


def _extract_root(path: Path, file_bytes: int, worker: Worker) -> bytes:
    with h5py.File(path, "r", locking=False) as file:
        worker.close_the_door()
        return msgspec.msgpack.encode(_Extraction(file.id, file_bytes, worker).root())


def _extract(path: Path, file_bytes: int, worker: Worker) -> bytes:
    with h5py.File(path, "r", locking=False) as file:
        worker.close_the_door()
        if file.userblock_size:
            msg = "it starts with a user block"
            raise ValueError(msg)
        return msgspec.msgpack.encode(_Extraction(file.id, file_bytes, worker).tree())


class _Extraction:
    """One walk over one open file; raises ValueError naming the object that is refused."""

    def __init__(self, file: Any, file_bytes: int, worker: Worker) -> None:
        self._root = h5py.h5g.open(file, b"/")
        self._file_bytes = file_bytes
        self._worker = worker
        self._groups: dict[str, Attributes] = {}
        self._datasets: dict[int, Dataset] = {}  # by address

    def root(self) -> Attributes:
        return self._attributes("/", self._root, ROOT)

    def tree(self) -> Tree:
        root = self.root()
        seen = {_address(self._root)}
        for count, (path, item) in enumerate(self._walk()):
            if count % _OBJECTS_PER_SIGN_OF_LIFE == 0:
                self._worker.alive()
            address = _address(item)
            if isinstance(item, h5py.h5g.GroupID):
                if address in seen:
                    msg = f"{path}: a group is linked twice"
                    raise ValueError(msg)
                seen.add(address)
                self._groups[path] = self._attributes(path, item, GROUP)
            elif address in self._datasets:
                self._datasets[address].paths.append(path)
            else:
                self._datasets[address] = self._dataset(path, item)
        return Tree(root, self._groups, list(self._datasets.values()))

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """Yield (path, object) for every link, groups before what is in them."""
        stack = [("", self._root)]
        count = 0
        while stack:
            prefix, group = stack.pop()
            for key, hard in _links(group):
                count += 1
                path = f"{prefix}/{key.decode()}".lstrip("/")
                if count > _MAX_OBJECTS or path.count("/") > _MAX_DEPTH:
                    msg = f"{path}: more objects or deeper groups than a golden has"
                    raise ValueError(msg)
                if not hard:
                    msg = f"{path}: soft and external links are not allowed"
                    raise ValueError(msg)
                item = h5py.h5o.open(group, key)
                if not isinstance(item, (h5py.h5g.GroupID, h5py.h5d.DatasetID)):
                    msg = f"{path}: neither a group nor a dataset"
                    raise ValueError(msg)
                yield path, item
                if isinstance(item, h5py.h5g.GroupID):
                    stack.append((path, item))

    def _dataset(self, path: str, item: Any) -> Dataset:
        plist = item.get_create_plist()
        if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count():
            msg = f"{path}: storage is not contiguous in this file"
            raise ValueError(msg)
        dtype, shape = _dtype(item.get_type()), item.shape
        if dtype is None or not isinstance(shape, tuple) or len(shape) > _MAX_RANK:
            msg = f"{path}: its type or shape is none that a golden holds"
            raise ValueError(msg)
        attributes = self._attributes(path, item, DATASET)
        return Dataset([path], dtype, tuple(map(int, shape)), item.get_offset(), attributes)

    def _attributes(self, path: str, item: Any, wanted: dict[str, str]) -> Attributes:
        """Read those of the ``wanted`` attributes that are there."""
        found: Attributes = {}
        for key, kind in wanted.items():
            if h5py.h5a.exists(item, key.encode()):
                attribute = h5py.h5a.open(item, key.encode())
                what = f"{path}: attribute {key}"
                text = kind == TEXT
                found[key] = self._text(what, attribute) if text else _number(what, attribute)
        return found

    def _text(self, what: str, attribute: Any) -> str:
        kind, limit = attribute.get_type(), min(_MAX_TEXT_BYTES, self._file_bytes)
        is_text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        if not is_text or attribute.shape != () or kind.get_size() > limit:
            msg = f"{what} is not a short fixed-length text"
            raise ValueError(msg)
        value = np.empty((), f"S{kind.get_size()}")
        attribute.read(value)
        return bytes(value[()]).decode()


def _number(what: str, attribute: Any) -> int:
    if attribute.shape != () or not attribute.get_type().equal(h5py.h5t.STD_I64LE):
        msg = f"{what} is not a 64-bit integer"
        raise ValueError(msg)
    value = np.empty((), np.int64)
    attribute.read(value)
    return int(value)


def _links(group: Any) -> list[tuple[bytes, bool]]:
    """Return the names in a group, and whether each is a hard link."""
    found: list[tuple[bytes, bool]] = []

    def visit(key: bytes, info: Any) -> None:
        found.append((bytes(key), info.type == h5py.h5l.TYPE_HARD))

    group.links.iterate(visit, info=True)
    return found


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item).addr)


def _dtype(kind: Any) -> str | None:
    return next((name for name in DTYPES if kind.equal(hdf5_type(name))), None)
