"""What a report keeps of a tensor's error, to be drawn without the tensor."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

LOWEST, HIGHEST = -3.0, 6.0  # decades


class Strip(msgspec.Struct, frozen=True):
    """The part of its tolerance that each index of one axis uses, ``step`` indices to a cell.

    Along the rows' axes a cell is its worst row; along the last axis it is the root mean
    square over the rows.
    """

    dim: str
    size: int
    step: Annotated[int, Meta(ge=1)]
    used: Annotated[tuple[float, ...], Meta(min_length=1)]


class Histogram(msgspec.Struct, frozen=True):
    """Sampled elements by |error| / unit, in bins of a quarter of a decade from 10^low on."""

    low: Annotated[float, Meta(ge=LOWEST, le=HIGHEST)]
    counts: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=64)]
    zeros: Annotated[int, Meta(ge=0)] = 0


class Extreme(msgspec.Struct, frozen=True):
    """One of the elements with the largest errors."""

    where: str
    actual: float
    expected: float
    error: float


class Picture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the figures of one tensor are drawn from.

    ``unit`` names what an element's error is divided by in ``histogram`` and ``quantiles``:
    ``budget``, the standard deviation that rounding gives it, or ``tolerance``, its share of
    the tensor's limit. ``quantiles`` are of the signed error, at ``probabilities(sampled)``.
    ``actual`` and ``expected`` are sampled pairs, the worst elements last.
    """

    name: str
    unit: str
    sampled: Annotated[int, Meta(ge=0)]
    strips: tuple[Strip, ...] = ()
    histogram: Histogram | None = None
    quantiles: tuple[float, ...] = ()
    actual: tuple[float, ...] = ()
    expected: tuple[float, ...] = ()
    worst: tuple[Extreme, ...] = ()
    looks_like: tuple[str, ...] = ()
