"""Tensors that a program tapped while it ran: ``goldenctl_tap.h`` and ``goldenctl.capture``."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError
from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.records import Record, read_records
from goldenctl.model.safetensors_header import NAME_LIMIT

_MAX_RANK = 8
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_DTYPES = (*_FLOATS, "bool", "uint8", "uint16", "int8", "int16", "int32", "int64")


class _Tap(msgspec.Struct, frozen=True):
    """The header of a tensor's record. ``dtype`` is NumPy's or ml_dtypes' name."""

    kind: str
    name: str
    dtype: str
    shape: tuple[int, ...]


def read_taps(path: Path) -> dict[str, DumpTensor]:
    """Return the tensors of a tap file by name; a name that came several times as ``NAME#0``,
    ``NAME#1`` and so on, in that order.

    What was torn by a crash is left out. Raises DamagedError when a record is not a tensor, or its
    size is not that of its shape.
    """
    taps = [(_parse(path, record), record) for record in read_records(path).records]
    times = Counter(tap.name for tap, _ in taps)
    seen: Counter[str] = Counter()
    found: dict[str, DumpTensor] = {}
    for tap, record in taps:
        name = tap.name if times[tap.name] == 1 else f"{tap.name}#{seen[tap.name]}"
        seen[tap.name] += 1
        if name in found:  # a program may tap NAME#0 itself
            message = f"{path}: tensor {name[:80]!r} is there twice"
            raise DamagedError(message)
        found[name] = _tensor(path, name, tap, record)
    return found


def _parse(path: Path, record: Record) -> _Tap:
    try:
        tap = msgspec.convert(record.header, _Tap)
    except msgspec.ValidationError as error:
        message = f"{path}: a record is not a tapped tensor: {error}"
        raise DamagedError(message) from error
    shown = f"{path}: tensor {tap.name[:80]!r}"
    if tap.kind != "tap" or not tap.name.isprintable() or not 0 < len(tap.name) <= NAME_LIMIT:
        message = f"{shown}: its name is empty, too long or unprintable, or it is not a tap"
        raise DamagedError(message)
    if len(tap.shape) > _MAX_RANK or any(not 0 <= size < 1 << 48 for size in tap.shape):
        message = f"{shown}: shape {list(tap.shape)} is not one of a tensor"
        raise DamagedError(message)
    dtype = _dtype(tap.dtype)
    if dtype is not None and math.prod(tap.shape) * dtype.itemsize != record.payload_bytes:
        message = (
            f"{shown}: {tap.dtype} {list(tap.shape)} needs "
            f"{math.prod(tap.shape) * dtype.itemsize} bytes, it has {record.payload_bytes}"
        )
        raise DamagedError(message)
    return tap


def _dtype(name: str) -> np.dtype[Any] | None:
    """Return a dtype by its name, None for one that is not known here."""
    named: Any = ml_dtypes.bfloat16 if name == "bfloat16" else name
    return np.dtype(named) if name in _DTYPES else None


def _tensor(path: Path, name: str, tap: _Tap, record: Record) -> DumpTensor:
    dtype = _dtype(tap.dtype)

    def read() -> NDArray[Any]:
        assert dtype is not None
        if not record.payload_bytes:
            return np.empty(tap.shape, dtype)
        return np.memmap(path, dtype, mode="r", offset=record.payload_offset, shape=tap.shape)

    return DumpTensor(name, tap.dtype, tap.shape, str(path), read)
