"""Space in a file for tensors that are written while it is not yet known what will follow.

A module's tensors are known only once they are there. Each gets its place in the file at once,
so that its bytes can be written, and its name and meaning at the end: the file is then as if it
had been laid out beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py

from goldenctl.atomic import claim
from goldenctl.golden.allocate import (
    LIBVER,
    Attributes,
    Tree,
    label,
    new_dataset,
    set_attributes,
    tensor_attributes,
)
from goldenctl.golden.schema import ALIGNMENT_BYTES, TensorSpec

_METADATA_BLOCK_BYTES = 64 << 10
_BATCH = 512  # tensors
_WAITING = b"waiting"


class Room:
    """A file being filled, under its temporary name. A context manager: left before it was
    ``settled`` it removes what it wrote.

    Only one thread at a time may use it. Raises UsageError when another process writes ``path``,
    OSError as it comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary_path = claim(path)
        self.tensors: dict[str, TensorSpec] = {}
        self.offsets: dict[str, int] = {}
        self._keys: dict[str, str] = {}
        self._places: dict[str, bytes] = {}  # where each is until it has its name
        self._settled = False
        self._file = self._open("w")
        h5py.h5g.create(self._file.id, _WAITING)

    def _open(self, mode: str) -> h5py.File:
        return h5py.File(
            self.temporary_path,
            mode,
            libver=LIBVER,
            alignment_threshold=1,
            alignment_interval=ALIGNMENT_BYTES,
            meta_block_size=_METADATA_BLOCK_BYTES,
        )

    def reserve(self, spec: TensorSpec) -> None:
        """Set room aside for a tensor; its name is a key until it is settled."""
        if self.tensors and len(self.tensors) % _BATCH == 0:
            self._forget_gaps()
        place = b"%s/%d" % (_WAITING, len(self.tensors))
        dataset = new_dataset(self._file.id, place, spec)
        self.tensors[spec.name] = spec
        self._places[spec.name] = place
        self.offsets[spec.name] = int(dataset.get_offset() or 0)

    def _forget_gaps(self) -> None:
        """HDF5 looks through every gap between tensors for the next one; closed, it forgets them
        (allocate.py)."""
        self._file.close()
        self._file = self._open("r+")

    def write(self, name: str, data: memoryview, at_byte: int = 0) -> None:
        """Write bytes of one tensor, ``at_byte`` bytes from its start."""
        with self.temporary_path.open("r+b") as file:
            file.seek(self.offsets[name] + at_byte)
            file.write(data)

    def name(self, keys: Mapping[str, str]) -> None:
        """Say which tensor has which name, by key."""
        self._keys = {name: key for key, name in keys.items()}

    def settle(
        self,
        root: Attributes,
        *,
        tensors: Sequence[TensorSpec],
        links: Mapping[str, str],
        groups: Sequence[str],
    ) -> dict[str, int]:
        """Name the tensors, which come in the order of execution, and close the file; return
        their offsets by name."""
        set_attributes(self._file.id, root)
        tree = Tree(self._file)
        for name in groups:
            set_attributes(tree.group(name), {"time_ns": 0})
        for order, spec in enumerate(tensors):
            if order and order % _BATCH == 0:
                self._forget_gaps()
                tree = Tree(self._file)
            dataset = h5py.h5d.open(self._file.id, self._places[self._keys[spec.name]])
            set_attributes(dataset, tensor_attributes(spec, order))
            label(dataset, spec.dims)
            folder, _, leaf = spec.name.rpartition("/")
            h5py.h5o.link(dataset, tree.group(folder), leaf.encode())
        tree.link(links)
        self._file.id.unlink(_WAITING)
        self._file.close()
        self._settled = True
        return {spec.name: self.offsets[self._keys[spec.name]] for spec in tensors}

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._settled:
            self._file.close()
            self.temporary_path.unlink(missing_ok=True)
