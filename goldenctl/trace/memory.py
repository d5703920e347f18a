"""The memory of a traced program, as far as its calls show it: which element lies where.

Every element that a call wrote has a tag, a number that says what it is (values.py). Copies carry
tags along, views of any strides read them. What another hand wrote there, such as a memcpy of the
program's own, has other bytes than the last call left: its tags are then unknown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from goldenctl.trace.calls import Arg, Call, Calls, Copy
from goldenctl.trace.layout import DTYPES

UNKNOWN = -1
_UNIT = 2  # bytes: the smallest element that has a tag
_ALIGNMENT = 64
Tags = NDArray[np.int64]


@dataclass
class _Arena:
    """A stretch of memory that calls wrote to; a unit's tag is stored plus one, 0 is unknown."""

    start: int
    tags: NDArray[np.int64]
    data: NDArray[np.uint8]
    written: bool = False


class Memory:
    """Tags and bytes of all that the calls of one log wrote."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._arenas = [
            _Arena(start, np.zeros((end - start) // _UNIT, np.int64), np.zeros(end - start, "u1"))
            for start, end in _merged(_extents(calls))
        ]
        self._starts = [arena.start for arena in self._arenas]

    def read(self, arg: Arg, *, changed: bool = False) -> Tags:
        """Return the tags of a tensor before a call, in its shape; ``UNKNOWN`` where memory
        holds other bytes than the last call left there, or none did.

        With ``changed``, what the last call left there, whatever memory holds now.
        """
        arena = self._arena(arg)
        if arena is None or not arena.written:
            return np.full(arg.shape, UNKNOWN, np.int64)
        tags = _view(arena.tags, arena.start, arg, _UNIT).copy() - 1
        if not changed and arg.before is not None and self._calls.holds(arg.before):
            stored = _bits(arena, arg)
            if stored is not None:
                tags[stored != _as_bits(self._calls.before(arg))] = UNKNOWN
        return tags

    def write(self, arg: Arg, tags: Tags) -> None:
        """Store what a call left in its output."""
        arena = self._arena(arg)
        if arena is None or 0 in arg.shape:
            return
        arena.written = True
        _view(arena.tags, arena.start, arg, _UNIT)[...] = tags + 1
        stored = _bits(arena, arg)
        if stored is not None and self._calls.holds(arg.after):
            stored[...] = _as_bits(self._calls.after(arg))

    def retag(self, arg: Arg, tags: Tags, content: str) -> None:
        """Store what a tensor turned out to be that was found there."""
        arena = self._arena(arg)
        if arena is None or 0 in arg.shape:
            return
        arena.written = True
        _view(arena.tags, arena.start, arg, _UNIT)[...] = tags + 1
        stored = _bits(arena, arg)
        if stored is not None and self._calls.holds(content):
            stored[...] = _as_bits(self._calls.array(content, arg))

    def copy(self, copy: Copy) -> None:
        """Follow a copy by infinirt, host memory included."""
        target, source = (self._at(p, copy.nbytes) for p in (copy.target, copy.source))
        if target is None:
            return
        (arena, first), units = target, copy.nbytes // _UNIT
        arena.written = True
        if source is None:
            arena.tags[first : first + units] = 0
            return
        other, other_first = source
        arena.tags[first : first + units] = other.tags[other_first : other_first + units]
        data = other.data[other_first * _UNIT : other_first * _UNIT + copy.nbytes]
        arena.data[first * _UNIT : first * _UNIT + copy.nbytes] = data

    def _at(self, pointer: int, nbytes: int) -> tuple[_Arena, int] | None:
        number = bisect_right(self._starts, pointer) - 1
        if number < 0:
            return None
        arena = self._arenas[number]
        offset = pointer - arena.start
        if offset + nbytes > len(arena.data) or offset % _UNIT:
            return None
        return arena, offset // _UNIT

    def _arena(self, arg: Arg) -> _Arena | None:
        found = _extent(arg)
        if found is None:
            return None
        place = self._at(found[0], found[1] - found[0])
        return None if place is None else place[0]


def _extents(calls: Calls) -> Iterator[tuple[int, int]]:
    """Yield where tensors lie that are no weights, and what copies move between them."""
    for event in calls.events:
        if isinstance(event, Call):
            for arg in event.args:
                found = _extent(arg)
                if found is not None and arg.before not in calls.weights:
                    yield found
        elif isinstance(event, Copy) and event.content not in calls.weights:
            for pointer in (event.source, event.target):
                yield pointer, pointer + event.nbytes


def _extent(arg: Arg) -> tuple[int, int] | None:
    if not arg.pointer or 0 in arg.shape or arg.dtype not in DTYPES:
        return None
    itemsize = DTYPES[arg.dtype].itemsize
    if itemsize % _UNIT or arg.pointer % _UNIT:
        return None
    reach = [(size - 1) * stride for size, stride in zip(arg.shape, arg.strides, strict=True)]
    first = arg.pointer + sum(min(0, each) for each in reach) * itemsize
    return first, arg.pointer + (sum(max(0, each) for each in reach) + 1) * itemsize


def _merged(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(extents):
        start, end = start - start % _ALIGNMENT, end + -end % _ALIGNMENT
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _view(units: NDArray[Any], start: int, arg: Arg, unit: int) -> NDArray[Any]:
    """View the first unit of each element of a tensor."""
    step = DTYPES[arg.dtype].itemsize // unit
    base = units[(arg.pointer - start) // unit :]
    strides = [stride * step * units.itemsize for stride in arg.strides]
    return as_strided(base, arg.shape, strides)


def _bits(arena: _Arena, arg: Arg) -> NDArray[Any] | None:
    """View the elements' bytes as unsigned integers; None where they are not aligned."""
    itemsize = DTYPES[arg.dtype].itemsize
    if (arg.pointer - arena.start) % itemsize or itemsize > 8:
        return None
    return _view(arena.data.view(f"u{itemsize}"), arena.start, arg, itemsize)


def _as_bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.itemsize}").reshape(values.shape)
