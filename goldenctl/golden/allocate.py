"""The skeleton of a file: groups, empty tensors with their attributes, links.

Through h5py's low-level calls: a golden has thousands of attributes, and the comfortable
ones cost a tenth of a millisecond each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from goldenctl.digests import BLAKE3, HEX_DIGITS
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.golden import schema
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.stream import PAGE_BYTES

LIBVER = ("v110", "v110")
PLACEHOLDER_DIGEST = "-" * len(f"{BLAKE3}:{'0' * HEX_DIGITS}")  # of either algorithm
# Room for one object's header and its place in its group; kept together at the file's
# start, so that the tensors lie side by side after it.
_METADATA_BYTES = 1024
_LARGE_BYTES = 256 << 10  # of the average tensor
_BATCH = 512  # tensors; twice as many take a fifth longer each
Attributes = Mapping[str, str | int]


@cache
def hdf5_type(dtype: str) -> h5py.h5t.TypeID:
    """Return the little-endian HDF5 type; bfloat16 is a custom float that h5dump prints."""
    if dtype == "bfloat16":
        kind = h5py.h5t.IEEE_F16LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_ebias(127)
        return kind
    return h5py.h5t.py_create(DTYPES[dtype].numpy.newbyteorder("<"))


def allocate(
    path: Path,
    root: Attributes,
    *,
    tensors: Sequence[TensorSpec],
    links: Mapping[str, str],
    groups: Sequence[str],
) -> dict[str, int]:
    """Create the file ``path`` and return the byte offset of every tensor; OSError as it comes.

    HDF5 keeps every gap that an aligned tensor leaves and looks through all of them for the next
    one, so that the time would grow with the square of their number. It forgets them when a
    file is closed: many tensors are added some at a time.
    """
    batches = [tensors[at : at + _BATCH] for at in range(0, len(tensors), _BATCH)] or [()]
    offsets: dict[str, int] = {}
    for number, batch in enumerate(batches):
        new = number == 0
        with h5py.File(
            path,
            "w" if new else "r+",
            libver=LIBVER,
            alignment_threshold=1,
            alignment_interval=_alignment_bytes(tensors),
            meta_block_size=metadata_bytes(root if new else {}, batch, groups if new else ()),
        ) as file:
            tree = Tree(file)
            if new:
                set_attributes(file.id, root)
                for name in groups:
                    set_attributes(tree.group(name), {"time_ns": 0})
            offsets |= _add(path, tree, batch, number * _BATCH)
            if number == len(batches) - 1:
                tree.link(links)
    return offsets


def _add(path: Path, tree: Tree, tensors: Sequence[TensorSpec], first: int) -> dict[str, int]:
    """Add tensors, of which the first is the file's ``first``; return where their bytes go."""
    datasets = [_create(tree, spec, order) for order, spec in enumerate(tensors, first)]
    for spec, dataset in zip(tensors, datasets, strict=True):
        label(dataset, spec.dims)
    placed = zip(tensors, datasets, strict=True)
    return {spec.name: _offset(path, spec, dataset) for spec, dataset in placed}


def _alignment_bytes(tensors: Sequence[TensorSpec]) -> int:
    """Return where tensors may start: at pages, from which memory goes to the disk uncopied,
    where that makes the file hardly larger."""
    large = sum(spec.nbytes for spec in tensors) >= _LARGE_BYTES * len(tensors)
    return PAGE_BYTES if large and tensors else schema.ALIGNMENT_BYTES


def metadata_bytes(root: Attributes, tensors: Sequence[TensorSpec], groups: Sequence[str]) -> int:
    """Return about how much of a file is not a tensor: the room kept for what is said of them."""
    return _METADATA_BYTES * (len(tensors) + len(groups)) + len(str(root))


class Tree:
    """Groups by path, made when they are first asked for."""

    def __init__(self, file: h5py.File) -> None:
        self._root = h5py.h5g.open(file.id, b"/")
        self._groups: dict[str, Any] = {"": self._root}

    def group(self, name: str) -> Any:
        if name not in self._groups:
            folder, _, leaf = name.rpartition("/")
            above = self.group(folder)
            self._groups[name] = (
                h5py.h5g.open(above, leaf.encode())
                if above.links.exists(leaf.encode())
                else h5py.h5g.create(above, leaf.encode(), gcpl=_timeless(h5py.h5p.GROUP_CREATE))
            )
        return self._groups[name]

    def link(self, links: Mapping[str, str]) -> None:
        """Give tensors further names."""
        for link, target in links.items():
            folder, _, leaf = link.rpartition("/")
            dataset = h5py.h5d.open(self._root, target.encode())
            h5py.h5o.link(dataset, self.group(folder), leaf.encode())


def _create(tree: Tree, spec: TensorSpec, order: int) -> Any:
    folder, _, leaf = spec.name.rpartition("/")
    dataset = new_dataset(tree.group(folder), leaf.encode(), spec)
    set_attributes(dataset, tensor_attributes(spec, order))
    return dataset


def new_dataset(group: Any, leaf: bytes | None, spec: TensorSpec) -> Any:
    """Create a tensor's dataset, which has its place in the file from then on; without a
    ``leaf`` it has no name yet."""
    space = h5py.h5s.create_simple(spec.shape)
    return h5py.h5d.create(group, leaf, hdf5_type(spec.dtype), space, dcpl=_storage())


def tensor_attributes(spec: TensorSpec, order: int) -> dict[str, str | int]:
    """Return a dataset's attributes; the last two are known only when it was computed."""
    return {
        "name": spec.name,
        "dims": ",".join(spec.dims),
        "role": spec.role,
        "op": spec.op,
        "order": order,
        "digest": PLACEHOLDER_DIGEST,
        "time_ns": 0,
    }


def _timeless(kind: Any) -> Any:
    """Return properties of objects whose headers hold no time: the same content is the same
    bytes."""
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


@cache
def _storage() -> Any:
    dcpl = _timeless(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return dcpl


def label(dataset: Any, labels: tuple[str, ...]) -> None:
    """Write all dimension labels at once, as HDF5's dimension scale interface stores them."""
    if not labels:
        return
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(h5py.h5t.VARIABLE)
    attribute = h5py.h5a.create(
        dataset, b"DIMENSION_LABELS", kind, h5py.h5s.create_simple((len(labels),))
    )
    attribute.write(np.array([label.encode() for label in labels], h5py.string_dtype("ascii")))


def _offset(path: Path, spec: TensorSpec, dataset: Any) -> int:
    offset = dataset.get_offset()
    if offset is None and spec.nbytes:
        msg = f"{path}: HDF5 gave {spec.name} no file offset"
        raise DamagedError(msg)
    return int(offset or 0)


def set_attributes(target: Any, values: Attributes) -> None:
    """Give an object (an h5py id) new attributes: fixed-length text or 64-bit integers."""
    for key, value in values.items():
        array, kind = _attribute(value)
        h5py.h5a.create(target, key.encode(), kind, _scalar()).write(array, kind)


def change_attributes(target: Any, values: Attributes) -> None:
    """Overwrite attributes that are there, with values of the same type and length."""
    for key, value in values.items():
        array, kind = _attribute(value)
        h5py.h5a.open(target, key.encode()).write(array, kind)


def replace_attributes(target: Any, values: Attributes) -> None:
    """Set attributes whether or not they are there."""
    for key in values:
        if h5py.h5a.exists(target, key.encode()):
            h5py.h5a.delete(target, key.encode())
    set_attributes(target, values)


def _attribute(value: str | int) -> tuple[np.ndarray[Any, Any], Any]:
    if isinstance(value, int):
        return np.array(value, "<i8"), h5py.h5t.STD_I64LE
    text = value.encode() or b"\0"
    return np.array(text, f"S{len(text)}"), _text_type(len(text))


@cache
def _scalar() -> Any:
    return h5py.h5s.create(h5py.h5s.SCALAR)


@cache
def _text_type(size: int) -> Any:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    return kind
