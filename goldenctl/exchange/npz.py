"""Goldens as NumPy's npz: one compressed member for each tensor, no pickle.

NumPy has no bfloat16: such a tensor is stored as float32, which holds every one of its bit
patterns (the upper half), so that anybody reads numbers and nothing is lost.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.exchange import catalog as catalogs
from goldenctl.exchange.catalog import Catalog, Tensor
from goldenctl.golden.file import GoldenFile

CATALOG = "goldenctl.json"
_BLOCK_ELEMENTS = 1 << 20
_LEVEL = 4
Progress = Callable[[int, int, str], None]


def write_npz(
    path: Path, file: GoldenFile, catalog: Catalog, *, progress: Progress = lambda *_: None
) -> None:
    """Write the tensors of ``catalog`` from ``file``; OSError as it comes."""
    done = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as out:
        for tensor in catalog.tensors:
            progress(done, catalog.nbytes, tensor.name)
            with _member(out, f"{tensor.name}.npy") as member:
                _write(member, tensor, file.verify(tensor.name))
            done += tensor.spec.nbytes
        with _member(out, CATALOG) as member:
            member.write(catalogs.encode(catalog))


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 bit patterns as the float32 whose upper half they are."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    """Return float32 values as bfloat16 bit patterns, None when any of them is not one."""
    bits = values.view(np.uint32)
    if (bits & 0xFFFF).any():
        return None
    return (bits >> 16).astype(np.uint16)


def _member(out: zipfile.ZipFile, name: str) -> IO[bytes]:
    # Opened by name a member's date is 1980: the same golden gives the same file.
    return out.open(name, "w", force_zip64=True)


def _write(member: IO[bytes], tensor: Tensor, values: NDArray[Any]) -> None:
    wide = tensor.dtype == "bfloat16"
    descr = "<f4" if wide else DTYPES[tensor.dtype].numpy.newbyteorder("<").str
    header = {"descr": descr, "fortran_order": False, "shape": tensor.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for block in _blocks(values.reshape(-1)):
        member.write((widen(block.view(np.uint16)) if wide else block).view(np.uint8).data)


def _blocks(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, flat.size, _BLOCK_ELEMENTS):
        yield flat[start : start + _BLOCK_ELEMENTS]
