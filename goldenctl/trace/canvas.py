"""What the engine computed, put in the golden's order: a sparse file of values and their masks."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.trace.memory import Tags
from goldenctl.trace.values import Place, Values, flats_of, numbers_of


@dataclass
class Picture:
    """One value: its elements in [B, all tokens, ...], which of them were computed, and the time
    that the calls took in each step (``default/00``)."""

    place: Place
    data: NDArray[Any]
    written: NDArray[np.bool_]
    time_ns: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Which rows are whole, in the shape without its last axis."""
        return np.asarray(self.written.all(-1))


class Canvas:
    """All values of a trace. They lie in a file without a name, so that memory stays small."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._file = tempfile.TemporaryFile(prefix="goldenctl-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._end = 0
        self.pictures: dict[Place, Picture] = {}

    def put(
        self, tags: Tags, values: NDArray[Any], steps: Sequence[str] = (), time_ns: int = 0
    ) -> None:
        """Store the elements of an output by their tags; unknown ones are left out. The time is
        shared by the values and steps that one call computes."""
        numbers = numbers_of(tags)
        present = [int(n) for n in np.unique(numbers) if n >= 0]
        for number in present:
            picture = self._picture(number, values.dtype)
            mine = numbers == number
            flats = flats_of(tags[mine])
            picture.data.reshape(-1)[flats] = values[mine].astype(picture.data.dtype, copy=False)
            picture.written.reshape(-1)[flats] = True
            for step in steps:
                picture.time_ns[step] += time_ns // (len(present) * len(steps))

    def merge(self, other: Canvas) -> list[Place]:
        """Take what another process computed; return where both did, and not the same bytes.

        What is here already stays.
        """
        disputed = []
        for place, theirs in other.pictures.items():
            mine = self._picture(self._values.number(place), theirs.data.dtype)
            same_type = mine.data.dtype == theirs.data.dtype
            both = mine.written & theirs.written
            if not (same_type and _same_bytes(mine.data[both], theirs.data[both])):
                disputed.append(place)
            new = theirs.written & ~mine.written
            mine.data[new] = theirs.data[new].astype(mine.data.dtype, copy=False)
            mine.written[new] = True
            mine.time_ns.update(theirs.time_ns)
        return disputed

    def _picture(self, number: int, dtype: np.dtype[Any]) -> Picture:
        place = self._values.place(number)
        if place not in self.pictures:
            shape = self._values.shape(number)
            data, written = self._mapped(shape, dtype), self._mapped(shape, np.dtype(np.bool_))
            self.pictures[place] = Picture(place, data, written)
        return self.pictures[place]

    def _mapped(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        nbytes = math.prod(shape) * dtype.itemsize
        offset, self._end = self._end, self._end + nbytes + -nbytes % 64
        self._file.truncate(self._end)
        return np.memmap(self._file, dtype, "r+", offset, shape)


def _same_bytes(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.array_equal(a.view(np.uint8), b.view(np.uint8)))
