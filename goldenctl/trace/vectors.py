"""Vectors of a checkpoint that an engine joined into one, such as the biases of q, k and v."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.safetensors_header import DTYPE_OF_TAG
from goldenctl.trace.layout import DTYPES

_LEAST_BYTES = 16


class Vectors:
    """The one-dimensional tensors of a checkpoint, by how their bytes begin in a dtype."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._names = [
            name
            for name in checkpoint.names()
            if len(checkpoint.entry(name).shape) == 1 and checkpoint.entry(name).tag in DTYPE_OF_TAG
        ]
        self._by_dtype: dict[str, dict[bytes, list[tuple[str, bytes]]]] = {}

    def parts(self, data: NDArray[np.uint8], dtype: str) -> list[tuple[str, int]]:
        """Return the vectors, with their sizes, that make up all of ``data``; empty if none do."""
        known = self._known(dtype)
        raw, at, found = data.tobytes(), 0, []
        while at < len(raw):
            match = next(
                (
                    (name, own)
                    for name, own in known.get(raw[at : at + _LEAST_BYTES], ())
                    if raw.startswith(own, at)
                ),
                None,
            )
            if match is None:
                return []
            found.append((match[0], len(match[1]) // DTYPES[dtype].itemsize))
            at += len(match[1])
        return found

    def _known(self, dtype: str) -> dict[bytes, list[tuple[str, bytes]]]:
        if dtype not in self._by_dtype:
            table: dict[bytes, list[tuple[str, bytes]]] = {}
            for name in self._names:
                own = _cast(self._checkpoint.map(name), dtype)
                table.setdefault(own[:_LEAST_BYTES], []).append((name, own))
            self._by_dtype[dtype] = table
        return self._by_dtype[dtype]


def _cast(values: NDArray[Any], dtype: str) -> bytes:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32).astype(DTYPES[dtype]).tobytes()
