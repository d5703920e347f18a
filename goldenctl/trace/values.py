"""What an element of a traced tensor is: an element of one of the golden's tensors, or of a weight.

A value is a tensor of a case with all its tokens, ``[batch, all tokens, ...]``, whatever steps the
engine took; scores and probabilities have all keys as their last axis. The tag of an element is
its value's number and its place in it, so that views, caches and batches of any layout say what
they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.model import graph
from goldenctl.places import layer_of
from goldenctl.trace.memory import UNKNOWN, Tags

_SHIFT = 40
_LOW = (1 << _SHIFT) - 1
WEIGHTS = "weights"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """A tensor of a case: ``layers.00.attention``, ``q_proj``; of the checkpoint: its name."""

    case: str
    sublayer: str
    tap: str

    @property
    def is_weight(self) -> bool:
        return self.sublayer == WEIGHTS

    @property
    def layer(self) -> int | None:
        return layer_of(self.sublayer)

    def __str__(self) -> str:
        return self.tap if self.is_weight else f"{self.sublayer}.{self.tap}"


@dataclass(frozen=True)
class Part:
    """A sum over ``blocks`` of columns (first, one past the last) of the ``width`` that an op's
    weight has."""

    place: Place
    blocks: frozenset[tuple[int, int]]
    width: int

    @property
    def is_complete(self) -> bool:
        return sum(last - first for first, last in self.blocks) >= self.width

    def __str__(self) -> str:
        columns = ", ".join(f"{first}-{last - 1}" for first, last in sorted(self.blocks))
        return f"{self.place.tap} of columns {columns} alone"


class Values:
    """The values met so far, by number; ``sizes`` are each case's dimensions over all tokens."""

    def __init__(self, sizes: Mapping[str, Mapping[str, int]]) -> None:
        self._sizes = sizes
        self._numbers: dict[Place, int] = {}
        self._places: list[Place] = []
        self._shapes: list[tuple[int, ...]] = []
        self._parts: dict[Place, Part] = {}

    def number(self, place: Place, dims: tuple[str, ...] = (), shape: Any = None) -> int:
        """Return a value's number; ``dims`` or ``shape`` are needed when it is new."""
        if place not in self._numbers:
            sizes = {} if shape is not None else self._sizes[place.case]
            known = tuple(shape) if shape is not None else tuple(_size(sizes, d) for d in dims)
            self._numbers[place] = len(self._places)
            self._places.append(place)
            self._shapes.append(known)
        return self._numbers[place]

    def part_number(self, part: Part, whole: int) -> int:
        """Return the number of a sum that lies as the value ``whole`` does."""
        place = Place(part.place.case, part.place.sublayer, str(part))
        self._parts[place] = part
        return self.number(place, shape=self._shapes[whole])

    def is_part(self, place: Place) -> bool:
        return place in self._parts

    def parts(self, tags: Tags) -> list[Part]:
        """Return the sums that tags name, the most frequent first."""
        return [self._parts[p] for p in self.found(tags) if p is not None and p in self._parts]

    def place(self, number: int) -> Place:
        return self._places[number]

    def shape(self, number: int) -> tuple[int, ...]:
        return self._shapes[number]

    def row_size(self, number: int) -> int:
        """How many elements one token has: all but the first two axes."""
        return math.prod(self._shapes[number][2:])

    def found(self, tags: Tags) -> list[Place | None]:
        """Return the places that tags name, None for unknown ones, the most frequent first."""
        numbers, counts = np.unique(numbers_of(tags), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [None if numbers[i] < 0 else self.place(int(numbers[i])) for i in order]

    def index(self, number: int, flat: Ints) -> tuple[Ints, ...]:
        """Return the indices in a value's shape."""
        return tuple(np.unravel_index(flat, self._shapes[number]))


def tag_of(number: int | Ints, flat: Any) -> Any:
    return (np.int64(number) << _SHIFT) | flat


def numbers_of(tags: Tags) -> Ints:
    """Return the number of each element's value, ``UNKNOWN`` where it has none."""
    return np.where(tags < 0, np.int64(UNKNOWN), tags >> _SHIFT)


def flats_of(tags: Tags) -> Ints:
    """Return each element's place in its value; of unknown ones nothing that means anything."""
    return tags & _LOW


def _size(sizes: Mapping[str, int], dim: str) -> int:
    return sizes["token" if dim in ("last_token", "key_token") else dim]


def case_sizes(config: Any, rows: int, length: int) -> dict[str, int]:
    """Return the size of each dimension over all tokens of a case."""
    return graph.sizes(config, rows, length)
