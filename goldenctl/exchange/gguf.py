"""A writer of GGUF files (version 3): typed keys, tensors in NumPy's order."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT_BYTES = 32
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY, _UINT64, _INT64 = 4, 5, 6, 8, 9, 10, 11
_TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 26,
    "int64": 27,
    "float64": 28,
    "bfloat16": 30,
}


@dataclass(frozen=True)
class UInt64:
    """An unsigned 64-bit key value."""

    value: int


Value = str | int | float | UInt64 | Sequence[int]


def write_gguf(
    path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write a file; int is int32, float float32, a list an array of int64; OSError as it comes."""
    keys = b"".join(_string(key) + _value(value) for key, value in metadata.items())
    infos, offset = b"", 0
    for name, array in tensors.items():
        infos += _string(name) + struct.pack("<I", array.ndim)
        infos += struct.pack(f"<{array.ndim}Q", *array.shape[::-1])
        infos += struct.pack("<IQ", _TYPES[array.dtype.name], offset)
        offset += array.nbytes + _padding(array.nbytes)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + keys + infos
    with path.open("wb") as file:
        file.write(header + bytes(_padding(len(header))))
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.write(bytes(_padding(array.nbytes)))


def _padding(size: int) -> int:
    return -size % _ALIGNMENT_BYTES


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, UInt64):
        return struct.pack("<IQ", _UINT64, value.value)
    if isinstance(value, int):
        return struct.pack("<Ii", _INT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    return struct.pack(f"<IIQ{len(value)}q", _ARRAY, _INT64, len(value), *value)
