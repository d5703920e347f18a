"""Safetensors files of other programs: mapped, every type listed, those that can be read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.exchange.dump_tensor import DumpTensor, damage_named
from goldenctl.model.safetensors_header import Entry, read_header

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


def read_safetensors(path: Path) -> dict[str, DumpTensor]:
    """Return the tensors of a file; one of a type that is not read is listed by its tag."""
    return {name: _tensor(path, name, entry) for name, entry in read_header(path).items()}


def _tensor(path: Path, name: str, entry: Entry) -> DumpTensor:
    kind = _TAG_DTYPES.get(entry.tag)
    dtype = np.dtype(kind) if kind is not None else None

    def read() -> NDArray[Any]:
        assert dtype is not None
        if not math.prod(entry.shape):
            return np.empty(entry.shape, dtype)
        with damage_named(path):
            return np.memmap(path, dtype, mode="r", offset=entry.offset, shape=entry.shape)

    shown = dtype.name if dtype is not None else entry.tag
    return DumpTensor(name, shown, entry.shape, str(path), read)
