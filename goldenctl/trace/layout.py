"""How a log packs the elements of a strided view, and how they become an array again.

A view is packed in the order of its memory: axes by falling stride, an axis of stride 0 once.
So a matrix and its transposed view have one content, and so have a tensor and any reshape of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

AXES_LIMIT = 16
DTYPES: dict[str, np.dtype[np.generic]] = {
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def packed_axes(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return the axes that are packed, outermost first: longer than 1, of a stride other than 0."""
    axes = [axis for axis, size in enumerate(shape) if size != 1 and strides[axis] != 0]
    return sorted(axes, key=lambda axis: -abs(strides[axis]))


def packed_count(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements the packing of a view holds; 0 of an empty view."""
    return 0 if 0 in shape else math.prod(shape[axis] for axis in packed_axes(shape, strides))


def unpack(
    packed: NDArray[np.generic], shape: Sequence[int], strides: Sequence[int]
) -> NDArray[np.generic]:
    """Return the read-only view ``shape`` of packed elements, with broadcast axes."""
    if 0 in shape:
        return np.empty(tuple(shape), packed.dtype)
    axes = packed_axes(shape, strides)
    ordered = packed.reshape([shape[axis] for axis in axes])
    ordered = ordered.transpose([axes.index(axis) for axis in sorted(axes)])
    kept = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(ordered.reshape(kept), tuple(shape))
