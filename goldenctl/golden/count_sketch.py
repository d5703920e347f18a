"""The sums that a sketch is made of, in one pass over a tensor of any size.

Every sum is float64 and added in the order of the elements, so that the result is the same on
every machine and NumPy version: ``numpy.bincount`` is one loop, unlike ``numpy.sum``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from goldenctl.digests import SHA256, Hasher, hex_of

BUCKETS = 64
Doubles = NDArray[np.float64]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]

_BLOCK = 1 << 16  # elements in memory at once; the order of the sums depends on it
_PCG64_STATE = 0x9E3779B97F4A7C15F39CC0605CEDC834
_PCG64_INCREMENT = 0x5851F42D4C957F2D14057B7EF767814F  # odd, as it has to be


class NonFinite(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How many elements are NaN, +Inf and -Inf, and a digest of where they are."""

    nan: Count = 0
    inf: Count = 0
    negative_inf: Count = 0
    places: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


@dataclass(frozen=True)
class Sums:
    """Sums over each group of rows: ``buckets`` [group, 64] and ``squares`` [group], of the
    values over ``scale``."""

    buckets: Doubles
    squares: Doubles
    scale: float
    non_finite: NonFinite | None


def fold(flat: NDArray[Any], edges: NDArray[np.int64]) -> Sums:
    """Sum up a flat tensor; group g holds the elements from ``edges[g]`` to ``edges[g + 1]``."""
    groups = edges.size - 1
    signed = np.zeros(groups * 2 * BUCKETS)
    squares = np.zeros(groups)
    scale, places = _scale(flat), _Places()
    for number, (start, block) in enumerate(_blocks(flat)):
        x = places.without(block, start)
        if scale != 1.0:
            x = x / scale
        group = _groups_of(edges, start, block.size)
        bins = (group << 7) + _random_bins(number)[: block.size]
        signed += np.bincount(bins, weights=x, minlength=signed.size)
        squares += np.bincount(group, weights=x * x, minlength=groups)
    halves = signed.reshape(groups, 2, BUCKETS)
    return Sums(halves[:, 0] - halves[:, 1], squares, scale, places.result())


def _blocks(flat: NDArray[Any]) -> Iterator[tuple[int, Doubles]]:
    for start in range(0, flat.size, _BLOCK):
        yield start, flat[start : start + _BLOCK].astype(np.float64)


@lru_cache(maxsize=64)
def _random_bins(block: int) -> NDArray[np.int64]:
    """Return the numbers 0..127 of one block's elements: six bits of bucket, one of sign."""
    generator = np.random.PCG64(0)
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": _PCG64_STATE, "inc": _PCG64_INCREMENT},
        "has_uint32": 0,
        "uinteger": 0,
    }
    words = generator.advance(block * _BLOCK // 8).random_raw(_BLOCK // 8)
    return (words.astype("<u8").view(np.uint8) & 127).astype(np.int64)


def _scale(flat: NDArray[Any]) -> float:
    """Return a power of two that keeps squares in range; 1.0 unless float64 values need it."""
    if flat.dtype != np.float64:
        return 1.0
    peak = 0.0
    for _, block in _blocks(flat):
        peak = max(peak, float(np.max(np.abs(block), initial=0.0, where=np.isfinite(block))))
    return 1.0 if peak == 0.0 or 1e-140 < peak < 1e140 else math.ldexp(1.0, math.frexp(peak)[1])


def _groups_of(edges: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    """Return the group of each element of a block."""
    inside = np.clip(edges, start, start + count)
    return np.repeat(np.arange(edges.size - 1), np.diff(inside))


class _Places:
    """Counts what is not finite and digests where it is, block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros(4, np.int64)
        self._places = Hasher(SHA256)  # which older manifests have

    def without(self, block: Doubles, start: int) -> Doubles:
        """Return the block with zeros in place of what is not finite."""
        finite = np.isfinite(block)
        if finite.all():
            return block
        where = np.flatnonzero(~finite)
        odd = block[where]
        classes = np.where(np.isnan(odd), 1, np.where(odd > 0, 2, 3))
        self._counts += np.bincount(classes, minlength=4)
        self._places.update(np.stack([where + start, classes]).astype("<i8").tobytes())
        return np.where(finite, block, 0.0)

    def result(self) -> NonFinite | None:
        _, nan, inf, negative_inf = (int(count) for count in self._counts)
        if not nan + inf + negative_inf:
            return None
        places = hex_of(self._places.digest)[:16]
        return NonFinite(nan=nan, inf=inf, negative_inf=negative_inf, places=places)
