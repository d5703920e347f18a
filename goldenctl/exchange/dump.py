"""Owns the reading of other programs' tensor dumps: safetensors, npz, npy, or a folder of them.

A dump is untrusted: headers are parsed without evaluation or pickle, every declared size is
held against the file before anything is allocated, and names are never made into paths.
"""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.exchange.records import MAGIC as LOG_MAGIC
from goldenctl.model.safetensors_header import NAME_LIMIT, Entry, read_header

_MAX_MEMBERS = 1 << 20
_MAX_RANK = 8
_HEADER_LIMIT_BYTES = 10_000
_MOST_DEFLATED = 1040  # deflate's best: 258 bytes from 2 bits, and a little
_BLOCK_BYTES = 1 << 20
_MAGIC = b"\x93NUMPY"
_TAG_DTYPES: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class DumpTensor:
    """A tensor of a dump. ``dtype`` is NumPy's name, ``bfloat16``, or what is not supported.

    ``read`` allocates and returns the values.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    where: str
    read: Callable[[], NDArray[Any]]


def read_dump(path: Path) -> dict[str, DumpTensor]:
    """Return the tensors of a dump by name; nothing but headers is read.

    Raises UsageError when there is no such file or it is of no known kind, MissingError for a
    folder without one, DamagedError when it is malformed or two files of a folder have the same
    tensor.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        message = f"{path}: there is no such file"
        raise UsageError(message)
    with _damage_named(path), path.open("rb") as file:
        magic = file.read(len(LOG_MAGIC))
    if magic == LOG_MAGIC:
        from goldenctl.exchange.taps import read_taps

        return read_taps(path)
    if magic.startswith(b"PK"):
        return _read_npz(path)
    if magic.startswith(_MAGIC):
        return {path.stem: _read_npy(path)}
    if magic[8:9] == b"{":
        return {name: _safetensor(path, name, e) for name, e in read_header(path).items()}
    message = f"{path}: neither safetensors nor npz nor npy nor taps"
    raise UsageError(message, hint="save the dump with safetensors or numpy.savez")


def npz_member(path: Path, name: str, *, limit_bytes: int) -> bytes | None:
    """Return a small member of a zip file, None when there is none of that name."""
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        info = archive.getinfo(name)
        if info.file_size > limit_bytes:
            message = f"{name[:80]!r} has {info.file_size} bytes"
            raise ValueError(message)
        with archive.open(info) as member:
            return member.read(limit_bytes)


def _read_folder(folder: Path) -> dict[str, DumpTensor]:
    found: dict[str, DumpTensor] = {}
    paths = sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".npz", ".npy", ".taps")
    )
    for path in paths:
        for name, tensor in read_dump(path).items():
            if name in found:
                message = f"{path}: tensor {name!r} is also in {found[name].where}"
                raise DamagedError(message, hint="name one file of the folder")
            found[name] = tensor
    if not found:
        message = f"{folder}: there is no .safetensors, .npz, .npy or .taps file in it"
        raise MissingError(message)
    return found


def _safetensor(path: Path, name: str, entry: Entry) -> DumpTensor:
    kind = _TAG_DTYPES.get(entry.tag)
    dtype = np.dtype(kind) if kind is not None else None

    def read() -> NDArray[Any]:
        assert dtype is not None
        if not math.prod(entry.shape):
            return np.empty(entry.shape, dtype)
        with _damage_named(path):
            return np.memmap(path, dtype, mode="r", offset=entry.offset, shape=entry.shape)

    shown = dtype.name if dtype is not None else entry.tag
    return DumpTensor(name, shown, entry.shape, str(path), read)


def _read_npz(path: Path) -> dict[str, DumpTensor]:
    found: dict[str, DumpTensor] = {}
    file_bytes = path.stat().st_size
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            message = f"{len(members)} members"
            raise ValueError(message)
        for info in members:
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            _check_member(info, name, file_bytes, seen=name in found)
            with archive.open(info) as member:
                found[name] = _npz_tensor(path, name, info, member)
    return found


def _check_member(info: zipfile.ZipInfo, name: str, file_bytes: int, *, seen: bool) -> None:
    shown = repr(name[:80])
    if not name or len(name) > NAME_LIMIT or not name.isprintable() or seen:
        message = f"{shown}: its name is empty, too long, unprintable, or there twice"
        raise ValueError(message)
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


def _npz_tensor(path: Path, name: str, info: zipfile.ZipInfo, member: IO[bytes]) -> DumpTensor:
    header = _parse_npy(member, info.file_size, repr(name[:80]))

    def read() -> NDArray[Any]:
        with _damage_named(path), zipfile.ZipFile(path) as archive, archive.open(info) as again:
            _parse_npy(again, info.file_size, repr(name[:80]))
            return _read_values(again, header)

    return DumpTensor(name, header.shown, header.shape, str(path), read)


def _read_npy(path: Path) -> DumpTensor:
    file_bytes = path.stat().st_size
    with _damage_named(path), path.open("rb") as file:
        header = _parse_npy(file, file_bytes, "it")

    def read() -> NDArray[Any]:
        with _damage_named(path), path.open("rb") as file:
            _parse_npy(file, file_bytes, "it")
            return _read_values(file, header)

    return DumpTensor(path.stem, header.shown, header.shape, str(path), read)


@dataclass(frozen=True)
class _Npy:
    """A parsed npy header."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]

    @property
    def shown(self) -> str:
        """NumPy's name. An array of ml_dtypes.bfloat16 is saved as two bytes without a type."""
        return "void16" if self.dtype == np.dtype("V2") else str(self.dtype.name)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _parse_npy(file: IO[bytes], total_bytes: int, shown: str) -> _Npy:
    """Read an npy header, which must describe every byte behind it; ValueError."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        message = f"{shown} has npy version {version}"
        raise ValueError(message)
    start = 10 if version == (1, 0) else 12
    with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
        shape, fortran, dtype = read(file, max_header_size=_HEADER_LIMIT_BYTES)
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        message = f"{shown} holds Python objects or records, which are not read"
        raise ValueError(message)
    if len(shape) > _MAX_RANK or any(not 0 <= size < 1 << 48 for size in shape):
        message = f"{shown} has shape {str(shape)[:80]}"
        raise ValueError(message)
    header = _Npy(dtype, fortran, shape)
    behind = total_bytes - file.tell()
    if file.tell() < start or header.nbytes != behind:
        message = f"{shown} has {behind} bytes, {dtype} {list(shape)} needs {header.nbytes}"
        raise ValueError(message)
    return header


def _read_values(file: IO[bytes], header: _Npy) -> NDArray[Any]:
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


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what reading a malformed file raises into one line that names it."""
    try:
        yield
    except PermissionError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    except _READ_ERRORS as error:
        message = f"{path}: not a usable dump: {error}"
        raise DamagedError(message) from error
