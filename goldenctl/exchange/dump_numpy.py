"""NumPy's npy and npz files, read without evaluation or pickle.

Every declared size is held against the file before anything is allocated. An array of a type
that NumPy itself cannot name (``<f1``) is listed, and refused when it is asked for; so is one
of objects or records beside others.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError
from goldenctl.exchange.dump_tensor import DumpTensor, damage_named, refuse_name, unreadable

MAGIC = b"\x93NUMPY"
_MAX_MEMBERS = 1 << 20
_MAX_RANK = 8
_HEADER_LIMIT_BYTES = 10_000
_MOST_DEFLATED = 1040  # deflate's best: 258 bytes from 2 bits, and a little
_BLOCK_BYTES = 1 << 20
# Where a header's length stands, by version, and how long that is.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
# What a type is that NumPy writes and does not know again; ml_dtypes makes them.
_FOREIGN = {"<f1": "float8_e5m2", "|f1": "float8_e5m2", "f1": "float8_e5m2"}
_LONG = re.compile(r"(?<=\d)L\b")  # of headers that Python 2 wrote


def read_npy(path: Path) -> dict[str, DumpTensor]:
    """Return the array of an npy file by the file's name."""
    file_bytes = path.stat().st_size
    with damage_named(path), path.open("rb") as file:
        header = _parse(file, file_bytes, "it")

    def read() -> NDArray[Any]:
        with damage_named(path), path.open("rb") as file:
            _parse(file, file_bytes, "it")
            return _read_values(file, header)

    return {path.stem: DumpTensor(path.stem, header.shown, header.shape, str(path), read)}


def read_npz(path: Path) -> dict[str, DumpTensor]:
    """Return the arrays of an npz file; one that is damaged or packed oddly spoils no other."""
    found: dict[str, DumpTensor] = {}
    file_bytes = path.stat().st_size
    with damage_named(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            message = f"{len(members)} members"
            raise ValueError(message)
        for info in members:
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            refuse_name(name, seen=name in found)
            try:
                with damage_named(path):
                    found[name] = _member(path, name, info, archive, file_bytes)
            except DamagedError as error:
                found[name] = unreadable(name, str(path), error)
    damaged = [tensor.problem for tensor in found.values() if tensor.problem is not None]
    if len(damaged) == len(found) and damaged:
        raise damaged[0]
    return found


def is_npz(path: Path) -> bool:
    """Tell whether a zip file holds npy files; DamagedError when it is not a zip file after all."""
    with damage_named(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return not names or any(name.endswith(".npy") for name in names)


def npz_member(path: Path, name: str, *, limit_bytes: int) -> bytes | None:
    """Return a small member of a zip file, None when there is none of that name."""
    with damage_named(path), zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        info = archive.getinfo(name)
        if info.file_size > limit_bytes:
            message = f"{name[:80]!r} has {info.file_size} bytes"
            raise ValueError(message)
        with archive.open(info) as member:
            return member.read(limit_bytes)


def _member(
    path: Path, name: str, info: zipfile.ZipInfo, archive: zipfile.ZipFile, file_bytes: int
) -> DumpTensor:
    shown = repr(name[:80])
    _check_member(info, shown, file_bytes)
    with archive.open(info) as member:
        header = _parse(member, info.file_size, shown)

    def read() -> NDArray[Any]:
        with damage_named(path), zipfile.ZipFile(path) as archive, archive.open(info) as again:
            _parse(again, info.file_size, shown)
            return _read_values(again, header)

    return DumpTensor(name, header.shown, header.shape, str(path), read)


def _check_member(info: zipfile.ZipInfo, shown: str, file_bytes: int) -> None:
    if info.flag_bits & 1:
        message = f"{shown} is encrypted"
        raise ValueError(message)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        message = f"{shown} is compressed by method {info.compress_type}, expected deflate"
        raise ValueError(message)
    stored = info.compress_type == zipfile.ZIP_STORED
    most = info.compress_size * (1 if stored else _MOST_DEFLATED)
    if info.compress_size > file_bytes or info.file_size > most:
        message = f"{shown} claims {info.file_size} bytes from {info.compress_size}"
        raise ValueError(message)


@dataclass(frozen=True)
class _Npy:
    """A parsed npy header; ``dtype`` is None for what cannot be read, ``shown`` its name."""

    dtype: np.dtype[Any] | None
    shown: str
    fortran: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 0)


def _parse(file: IO[bytes], total_bytes: int, shown: str) -> _Npy:
    """Read an npy header, which must describe every byte after it; ValueError."""
    version = np.lib.format.read_magic(file)
    length_bytes = _LENGTH_BYTES.get(version)
    if length_bytes is None:
        message = f"{shown} has npy version {version}"
        raise ValueError(message)
    length = int.from_bytes(_exactly(file, length_bytes), "little")
    if length > _HEADER_LIMIT_BYTES:
        message = f"{shown} has a header of {length} bytes"
        raise ValueError(message)
    text = _exactly(file, length).decode("utf-8" if version == (3, 0) else "latin-1")
    descr, fortran, shape = _fields(text, shown)
    dtype, name = _dtype(descr, shown)
    header = _Npy(dtype, name, fortran, shape)
    behind = total_bytes - file.tell()
    if dtype is not None and header.nbytes != behind:
        message = f"{shown} has {behind} bytes, {dtype} {list(shape)} needs {header.nbytes}"
        raise ValueError(message)
    return header


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        message = "its header is cut off"
        raise ValueError(message)
    return data


def _fields(text: str, shown: str) -> tuple[object, bool, tuple[int, ...]]:
    """Return (descr, fortran_order, shape) of a header's text; a literal, never evaluated."""
    try:
        raw = ast.literal_eval(_LONG.sub("", text))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        message = f"{shown} has a header that is not a literal"
        raise ValueError(message) from error
    if not isinstance(raw, dict) or raw.keys() != {"descr", "fortran_order", "shape"}:
        message = f"{shown} has a header without descr, fortran_order and shape alone"
        raise ValueError(message)
    descr, fortran, shape = raw["descr"], raw["fortran_order"], raw["shape"]
    sizes = isinstance(shape, tuple) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 48
        for size in shape
    )
    if not isinstance(fortran, bool) or not sizes or len(shape) > _MAX_RANK:
        message = f"{shown} has shape {str(shape)[:80]}"
        raise ValueError(message)
    return descr, fortran, shape


def _dtype(descr: object, shown: str) -> tuple[np.dtype[Any] | None, str]:
    """Return a header's type and its name; None for one that NumPy saves and does not know again.
    ValueError for objects and records."""
    if isinstance(descr, str) and descr in _FOREIGN:
        return None, _FOREIGN[descr]
    try:
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (TypeError, ValueError):
        return None, str(descr)[:40]
    if dtype is None or dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        message = f"{shown} holds Python objects or records, which are not read"
        raise ValueError(message)
    # An array of ml_dtypes.bfloat16 is saved as two bytes without a type.
    name = f"void{8 * dtype.itemsize}" if dtype.kind == "V" else str(dtype.name)
    return dtype, name


def _read_values(file: IO[bytes], header: _Npy) -> NDArray[Any]:
    if header.dtype is None:
        message = f"arrays of type {header.shown} are not read"
        raise ValueError(message)
    buffer = np.empty(header.nbytes, np.uint8)
    view = buffer.data
    while view:
        block = file.read(min(len(view), _BLOCK_BYTES))
        if not block:
            message = "it ends before its last value"
            raise ValueError(message)
        view[: len(block)] = block
        view = view[len(block) :]
    if file.read(1):  # a zip member's checksum is verified at its end
        message = "it goes on after its last value"
        raise ValueError(message)
    if header.fortran:
        return buffer.view(header.dtype).reshape(header.shape[::-1]).T
    return buffer.view(header.dtype).reshape(header.shape)
