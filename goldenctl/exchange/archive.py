"""The compressed archive: the golden's tree as chunked, shuffled, deflated HDF5.

Any h5py, h5dump or HDFView reads it without a plugin. Chunks are packed and unpacked here,
on all cores, not by the HDF5 library: what comes out of a hostile chunk is bounded.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.exchange import catalog as catalogs
from goldenctl.exchange.catalog import Catalog, Tensor
from goldenctl.golden.allocate import LIBVER, hdf5_type, set_attributes
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import ARCHIVE_FORMAT
from goldenctl.isolate import Refused, Worker, isolated
from goldenctl.places import place
from goldenctl.threads import map_in_order

CATALOG = "catalog"
LEVEL = 4
_CHUNK_BYTES = 1 << 20
_MAX_DEPTH = 12
_MAX_OBJECTS = 1_000_000  # and chunks of one tensor
# Deflate's best: 258 bytes from 2 bits, and a little.
_MOST_DEFLATED = 1040
Bits = NDArray[np.uint8]
Progress = Callable[[int, int, str], None]


def write_archive(
    path: Path, file: GoldenFile, catalog: Catalog, *, progress: Progress = lambda *_: None
) -> None:
    """Write the tensors of ``catalog`` from ``file``; OSError as it comes."""
    done = 0
    with h5py.File(path, "w", libver=LIBVER) as out:
        text = np.bytes_(catalogs.encode(catalog))
        out.create_dataset(CATALOG, data=text)
        for tensor in catalog.tensors:
            progress(done, catalog.nbytes, tensor.name)
            _write(out, tensor, file.verify(tensor.name))
            done += tensor.spec.nbytes
        for link, target in catalog.links.items():
            out.require_group(place(link).group)
            out[link] = out[target]
        root: dict[str, str | int] = {
            "format": ARCHIVE_FORMAT,
            "format_version": catalogs.CATALOG_VERSION,
            "kind": catalog.kind,
            "content_digest": catalog.content_digest,
            "complete": 1,
        }
        set_attributes(h5py.h5g.open(out.id, b"/"), root)


class _Index(msgspec.Struct, frozen=True):
    """Where an archive's bytes are: (offset, size) of the catalog and of each tensor's chunks,
    in the order of the tensor's bytes. ``problems`` say of a tensor why it has none."""

    catalog: tuple[int, int]
    chunks: dict[str, list[tuple[int, int]]]
    problems: dict[str, str]


class Archive:
    """An archive opened for reading: its catalog, and each tensor's bytes on demand.

    The HDF5 library sees the file in a process of its own alone, which says where the chunks
    are. A context manager. Raises DamagedError for a file that is not one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            self._file_bytes = path.stat().st_size
            self._index = msgspec.msgpack.decode(isolated(partial(_find, path)), type=_Index)
            self.catalog = catalogs.decode(self._bytes(self._index.catalog), str(path))
        except BaseException as error:
            self._file.close()
            if isinstance(error, Refused | ValueError):
                raise self._damaged(error) from error
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, tensor: Tensor) -> Bits:
        """Return a tensor's bytes as stored in the golden.

        The declared size is held against the file's before anything is allocated.
        """
        try:
            return self._read(tensor)
        except (ValueError, zlib.error) as error:
            raise self._damaged(error, tensor.name) from error

    def _read(self, tensor: Tensor) -> Bits:
        nbytes = tensor.spec.nbytes
        if not nbytes:
            return np.empty(0, np.uint8)
        places = self._index.chunks.get(tensor.name)
        if places is None:
            raise ValueError(self._index.problems.get(tensor.name, "it is not there"))
        itemsize = DTYPES[tensor.dtype].itemsize
        chunk = chunk_shape(tensor.shape, itemsize)
        offsets = list(_offsets(tensor.shape, chunk)) if len(places) <= nbytes else []
        stored = sum(size for _, size in places)
        if len(offsets) != len(places) or nbytes > stored * _MOST_DEFLATED:
            message = f"its {nbytes} bytes cannot come from {len(places)} chunks of {stored}"
            raise ValueError(message)
        out = np.empty(nbytes, np.uint8)
        chunk_bytes = math.prod(chunk) * itemsize
        packed = (self._bytes(place) for place in places)
        unpacked = map_in_order(lambda data: _unpack(data, chunk_bytes, itemsize), packed)
        for offset, data in zip(offsets, unpacked, strict=True):
            start = _flat(offset, tensor.shape) * itemsize
            out[start : start + chunk_bytes] = data[: nbytes - start]
        return out

    def _bytes(self, place: tuple[int, int]) -> bytes:
        offset, size = place
        if not 0 <= offset <= offset + size <= self._file_bytes:
            message = f"{size} bytes at {offset} are not in the file"
            raise ValueError(message)
        self._file.seek(offset)
        return self._file.read(size)

    def _damaged(self, error: BaseException, name: str = "") -> DamagedError:
        where = f"{self.path}: {name}" if name else f"{self.path}"
        message = f"{where}: not a usable archive: {error}"
        return DamagedError(message, hint="export the golden again")


def _find(path: Path, worker: Worker) -> bytes:
    """Return the encoded index of an archive; runs in a process of its own."""
    with h5py.File(path, "r", locking=False) as file:
        worker.close_the_door()
        root = h5py.h5g.open(file.id, b"/")
        catalog = _place_of_catalog(root)
        chunks: dict[str, list[tuple[int, int]]] = {}
        problems: dict[str, str] = {}
        stack, seen, objects = [("", root)], {_address(root)}, 0
        while stack:
            prefix, group = stack.pop()
            for key in range(group.get_num_objs()):
                worker.alive()
                objects += 1
                if objects > _MAX_OBJECTS or prefix.count("/") > _MAX_DEPTH:
                    message = f"{prefix[:80]!r}: more objects or deeper groups than a golden has"
                    raise ValueError(message)
                leaf = group.get_objname_by_idx(key)
                name = f"{prefix}{leaf.decode()}"
                if group.links.get_info(leaf).type != h5py.h5l.TYPE_HARD:
                    message = f"{name[:80]!r} is not a hard link"
                    raise ValueError(message)
                item = h5py.h5o.open(group, leaf)
                if isinstance(item, h5py.h5g.GroupID):
                    if _address(item) in seen:
                        message = f"{name[:80]!r}: a group is linked twice"
                        raise ValueError(message)
                    seen.add(_address(item))
                    stack.append((f"{name}/", item))
                elif name != CATALOG:
                    try:
                        chunks[name] = _chunks(item)
                    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
                        problems[name] = str(error)
        return msgspec.msgpack.encode(_Index(catalog, chunks, problems))


def _place_of_catalog(root: Any) -> tuple[int, int]:
    if CATALOG.encode() not in root or h5py.h5o.get_info(root, CATALOG.encode()).type != 1:
        message = "it has no catalog"
        raise ValueError(message)
    dataset = h5py.h5d.open(root, CATALOG.encode())
    plist, kind = dataset.get_create_plist(), dataset.get_type()
    inside = plist.get_layout() == h5py.h5d.CONTIGUOUS and not plist.get_external_count()
    fixed = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    if not inside or not fixed or dataset.shape != () or kind.get_size() > catalogs.LIMIT_BYTES:
        message = "its catalog is not a text in the file"
        raise ValueError(message)
    return int(dataset.get_offset() or 0), int(kind.get_size())


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item).addr)


def _chunks(dataset: Any) -> list[tuple[int, int]]:
    """Return where a dataset's chunks are; ValueError when it is not packed as we pack."""
    plist = dataset.get_create_plist()
    shape = dataset.shape
    if 0 in shape:
        return []
    dtype = next((name for name in DTYPES if dataset.get_type().equal(hdf5_type(name))), None)
    if dtype is None or plist.get_layout() != h5py.h5d.CHUNKED:
        message = "its type or its layout is not that of an archive"
        raise ValueError(message)
    chunk = tuple(plist.get_chunk())
    filters = [plist.get_filter(at)[0] for at in range(plist.get_nfilters())]
    packed = filters == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
    if chunk != chunk_shape(shape, DTYPES[dtype].itemsize) or not packed:
        message = "its chunks are not those of an archive"
        raise ValueError(message)
    count = math.prod(-(-size // step) for size, step in zip(shape, chunk, strict=True))
    if count > _MAX_OBJECTS or dataset.get_num_chunks() != count:
        message = f"it has {dataset.get_num_chunks()} of {count} chunks"
        raise ValueError(message)
    found = []
    for offset in _offsets(shape, chunk):
        info = dataset.get_chunk_info_by_coord(offset)
        if info.filter_mask or info.byte_offset is None:
            message = "a chunk is not packed"
            raise ValueError(message)
        found.append((int(info.byte_offset), int(info.size)))
    return found


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return a chunk of about a mebibyte that is one contiguous piece of the tensor."""
    chunk = list(shape)
    for axis, size in enumerate(shape):
        rest = math.prod(chunk[axis + 1 :]) * itemsize
        chunk[axis] = max(1, min(size, _CHUNK_BYTES // rest))
        if chunk[axis] > 1:
            break
    return tuple(chunk)


def _write(out: h5py.File, tensor: Tensor, values: NDArray[Any]) -> None:
    folder, _, leaf = tensor.name.rpartition("/")
    group = out.require_group(folder) if folder else out
    space = h5py.h5s.create_simple(tensor.shape)
    itemsize = DTYPES[tensor.dtype].itemsize
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    chunk = chunk_shape(tensor.shape, itemsize) if values.size else ()
    if chunk:
        dcpl.set_chunk(chunk)
        dcpl.set_shuffle()
        dcpl.set_deflate(LEVEL)
    kind = hdf5_type(tensor.dtype)
    dataset = h5py.h5d.create(group.id, leaf.encode(), kind, space, dcpl=dcpl)
    described = {"dims": ",".join(tensor.dims), "role": tensor.role, "op": tensor.op}
    set_attributes(dataset, {**described, "digest": tensor.digest})
    for axis, label in enumerate(tensor.dims):
        h5py.Dataset(dataset).dims[axis].label = label
    if not chunk:
        return
    flat = values.reshape(-1).view(np.uint8)
    chunk_bytes = math.prod(chunk) * itemsize
    offsets = list(_offsets(tensor.shape, chunk))
    starts = [_flat(offset, tensor.shape) * itemsize for offset in offsets]
    pieces = (flat[start : start + chunk_bytes] for start in starts)
    packed = map_in_order(lambda piece: _pack(piece, chunk_bytes, itemsize), pieces)
    for offset, data in zip(offsets, packed, strict=True):
        dataset.write_direct_chunk(offset, data)


def _pack(piece: Bits, chunk_bytes: int, itemsize: int) -> bytes:
    """Shuffle and deflate a chunk as HDF5's filters do; a last one is filled with zeros."""
    if piece.nbytes < chunk_bytes:
        piece = np.concatenate([piece, np.zeros(chunk_bytes - piece.nbytes, np.uint8)])
    return zlib.compress(np.ascontiguousarray(piece.reshape(-1, itemsize).T).data, LEVEL)


def _unpack(data: bytes, chunk_bytes: int, itemsize: int) -> Bits:
    plain = zlib.decompressobj().decompress(data, chunk_bytes + 1)
    if len(plain) != chunk_bytes:
        message = f"a chunk holds {len(plain)} bytes or more, expected {chunk_bytes}"
        raise ValueError(message)
    planes = np.frombuffer(plain, np.uint8).reshape(itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1)


def _offsets(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield where each chunk starts, in the order of the tensor's bytes."""
    counts = tuple(-(-size // step) for size, step in zip(shape, chunk, strict=True))
    for index in np.ndindex(*counts):
        yield tuple(int(i) * step for i, step in zip(index, chunk, strict=True))


def _flat(offset: tuple[int, ...], shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(offset, shape)) if shape else 0
