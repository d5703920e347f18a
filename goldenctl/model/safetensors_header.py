"""A reader of safetensors headers, as untrusted input.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the data. Beyond
what the safetensors package checks, duplicate keys and odd names are refused.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from goldenctl.errors import DamagedError, MissingError
from goldenctl.model.fields import is_int, show
from goldenctl.model.jsonfile import parse_object

HEADER_LIMIT_BYTES = 32 << 20  # a tensor takes about 120 bytes: room for 280,000
NAME_LIMIT = 512
ITEM_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
# Those of weights that a forward pass can read, by the names of dtypes.
DTYPE_OF_TAG = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_TAG = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: ``tag`` is the format's dtype name, ``offset`` counts from byte 0."""

    tag: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_header(path: Path) -> dict[str, Entry]:
    """Return the tensors of a safetensors file in the order of their bytes.

    Raises MissingError when it cannot be opened and DamagedError when its header is not
    well formed, or does not describe every byte of the file exactly once.
    """
    header, data_bytes = _read_header(path)
    return parse_header(header, data_bytes, where=str(path))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; raises as ``read_header`` does."""
    return _metadata(_parse_object(_read_header(path)[0], str(path)), str(path))


def _read_header(path: Path) -> tuple[bytes, int]:
    """Return the header and how many bytes follow it."""
    try:
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > file_bytes - 8:
                message = f"{path}: cut off: {file_bytes} bytes cannot hold its header"
                raise DamagedError(message)
            if length > HEADER_LIMIT_BYTES:
                message = f"{path}: its header of {length} bytes is above {HEADER_LIMIT_BYTES}"
                raise DamagedError(message)
            header = file.read(length)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    return header, file_bytes - 8 - length


def parse_header(header: bytes, data_bytes: int, *, where: str) -> dict[str, Entry]:
    """Return the tensors that ``header`` describes, for ``data_bytes`` bytes after it."""
    parsed = _parse_object(header, where)
    _metadata(parsed, where)
    parsed.pop("__metadata__", None)
    start = 8 + len(header)
    entries = {name: _entry(name, raw, start, where) for name, raw in parsed.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size_bytes)))
    position = start
    for name, entry in ordered.items():
        if entry.offset != position:
            kind = "overlaps the one before it" if entry.offset < position else "follows a gap"
            _fail(where, name, f"its data {kind}")
        position += entry.size_bytes
    if position != start + data_bytes:
        message = (
            f"{where}: the header describes {position - start} bytes of data, "
            f"the file has {data_bytes}"
        )
        raise DamagedError(message, hint="it is cut off, or something was appended")
    return ordered


def _parse_object(header: bytes, where: str) -> dict[str, Any]:
    if not header.startswith(b"{"):
        message = f"{where}: not a safetensors file: its header is not a JSON object"
        raise DamagedError(message)
    return parse_object(header, f"{where}: header")


def _metadata(parsed: dict[str, Any], where: str) -> dict[str, str]:
    metadata = parsed.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        message = f"{where}: __metadata__ is not a map of strings"
        raise DamagedError(message)
    return metadata


def _entry(name: str, raw: Any, start: int, where: str) -> Entry:
    if not name or len(name) > NAME_LIMIT or not name.isprintable():
        _fail(where, name, "its name is empty, too long, or has unprintable characters")
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        _fail(where, name, "expected the keys dtype, shape and data_offsets")
    tag, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        _fail(where, name, f"dtype {show(tag)} is not known")
    if not _sizes(shape) or len(shape) > 8:
        _fail(where, name, f"shape {show(shape)} is not a list of up to 8 sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _fail(where, name, f"data_offsets {show(offsets)} are not a range")
    actual = offsets[1] - offsets[0]
    # A tag newer than this table is listed; whoever wants its values refuses it.
    bits = math.prod(shape) * ITEM_BITS.get(tag, 0)
    if tag in ITEM_BITS and (bits % 8 or actual != bits // 8):
        needed = f"{bits // 8}" if bits % 8 == 0 else f"{bits} bits, no whole number"
        _fail(where, name, f"has {actual} bytes, {tag} {show(shape)} needs {needed}")
    return Entry(tag, tuple(shape), start + offsets[0], actual)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(is_int(v) and 0 <= v < 1 << 63 for v in value)


def _fail(where: str, name: str, problem: str) -> NoReturn:
    message = f"{where}: tensor {show(name)}: {problem}"
    raise DamagedError(message)
