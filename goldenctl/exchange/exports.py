"""Opening of exported files: their format, their catalog, and a reader of their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.exchange import archive, npz, safetensors
from goldenctl.exchange import catalog as catalogs
from goldenctl.exchange.catalog import Catalog, Tensor
from goldenctl.exchange.dump import read_dump
from goldenctl.exchange.dump_numpy import npz_member
from goldenctl.golden.schema import HDF5_MAGIC
from goldenctl.model.safetensors_header import read_metadata

Read = Callable[[Tensor], np.ndarray]
Progress = Callable[[int, int, str], None]


@contextmanager
def open_export(path: Path) -> Iterator[tuple[Catalog, Read] | None]:
    """Yield the catalog of a file that goldenctl exported and a reader of its tensors' bytes.

    None for any other file. Raises DamagedError when it is one of ours but malformed.
    """
    magic = _magic(path)
    if magic == HDF5_MAGIC:
        with archive.Archive(path) as opened:
            yield opened.catalog, opened.read
        return
    data = None
    if magic.startswith(b"PK"):
        data = npz_member(path, npz.CATALOG, limit_bytes=catalogs.LIMIT_BYTES)
    elif len(magic) == 8 and path.suffix == ".safetensors":
        text = read_metadata(path).get(safetensors.CATALOG)
        data = text.encode() if text is not None else None
    if data is None:
        yield None
        return
    dump = read_dump(path)

    def read(tensor: Tensor) -> np.ndarray:
        found = dump.get(tensor.name)
        if found is None or found.shape != tensor.shape:
            message = f"{path}: {tensor.name} is not there, or of another shape"
            raise DamagedError(message, hint="export the golden again")
        return _bits(found.read(), tensor, str(path))

    yield catalogs.decode(data, str(path)), read


def _bits(values: np.ndarray, tensor: Tensor, where: str) -> np.ndarray:
    """Return a tensor's bytes as the golden stores them."""
    if tensor.dtype == "bfloat16" and values.dtype == np.float32:
        narrowed = npz.narrow(np.ascontiguousarray(values))
        if narrowed is None:
            message = f"{where}: {tensor.name} has values that are not bfloat16 numbers"
            raise DamagedError(message, hint="export the golden again")
        values = narrowed
    elif values.dtype != DTYPES[tensor.dtype].numpy:
        message = f"{where}: {tensor.name} is {values.dtype}, expected {tensor.dtype}"
        raise DamagedError(message, hint="export the golden again")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _magic(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(8)
