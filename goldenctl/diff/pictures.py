"""What figures show of a tensor's error, computed while the tensors are at hand.

Bounded whatever the tensor's size, so that a report can be drawn again without tensors: strips
of at most ``CELLS`` cells, a histogram, quantiles, and ``POINTS`` sampled pairs. Which elements
are sampled depends on the shape alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.signature import describe_error
from goldenctl.records.pictures import HIGHEST, LOWEST, Extreme, Histogram, Picture, Strip

CELLS = 96
POINTS = 240
QUANTILES = 49
WORST = 8
_SAMPLE = 1 << 17  # elements behind histogram and quantiles
_COLUMN_SAMPLE = 1 << 22  # elements behind the strip of the last axis
_DESCRIBED = 1 << 20  # elements of a tensor whose error is put into words
_BINS_PER_DECADE = 4
_BLOCK = 1 << 20
Rows = NDArray[np.float64]
Values = NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """What a tensor's rows are measured by: the share of its tolerance that each row uses,
    the limit of each row's L2 error, and the L2 error that rounding gives it, if known."""

    shares: Rows
    limits: Rows
    rounding: Rows | None = None


def picture(
    name: str,
    actual: Values,
    expected: Values,
    dims: tuple[str, ...],
    *,
    scale: Scale,
    describe: bool,
) -> Picture:
    """Take the picture of one tensor of at least one element; ``scale`` has an entry a row.

    ``describe`` also puts the error into words (a wrong tensor's; a right one has none).
    """
    width = expected.shape[-1] if expected.ndim else 1
    a, e = actual.reshape(-1, width), expected.reshape(-1, width)
    unit = scale.limits if scale.rounding is None else scale.rounding
    index = _spread(expected.size, _SAMPLE)
    error, z = _standardised(a, e, index, unit)
    worst = _worst(a, e)
    few = np.concatenate([_spread(expected.size, POINTS), worst])
    words = describe and expected.size <= _DESCRIBED
    return Picture(
        name=name,
        unit="tolerance" if scale.rounding is None else "budget",
        sampled=len(error),
        strips=tuple(_strips(a, e, expected.shape, dims, scale)),
        histogram=_histogram(np.abs(z)),
        quantiles=_rounded(_quantiles(z)),
        actual=_rounded(a.reshape(-1)[few].astype(np.float64)),
        expected=_rounded(e.reshape(-1)[few].astype(np.float64)),
        worst=tuple(_extremes(a, e, worst, expected.shape, dims)),
        looks_like=tuple(describe_error(actual, expected, dims, str(expected.dtype)))
        if words
        else (),
    )


def _spread(size: int, wanted: int) -> NDArray[np.int64]:
    """Return at most ``wanted`` increasing indices below ``size``, evenly spread but on no grid.

    Each of ``wanted`` equal ranges gives one index, placed by the golden ratio.
    """
    if size <= wanted:
        return np.arange(size)
    i = np.arange(wanted)
    within = (i * 0.6180339887498949) % 1.0
    return np.minimum(((i + within) * (size / wanted)).astype(np.int64), size - 1)


def _standardised(a: Values, e: Values, index: NDArray[np.int64], unit: Rows) -> tuple[Rows, Rows]:
    """Errors of the sampled elements that are finite on both sides, and the same over the
    standard deviation of an element of their row; 0 / 0 is 0."""
    width = e.shape[-1]
    x = a.reshape(-1)[index].astype(np.float64)
    y = e.reshape(-1)[index].astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    error = x[finite] - y[finite]
    deviation = unit[index[finite] // width] / np.sqrt(width)
    with np.errstate(divide="ignore", invalid="ignore"):
        return error, np.where(error == 0.0, 0.0, error / deviation)


def _worst(a: Values, e: Values) -> NDArray[np.int64]:
    """Flat indices of the elements that are furthest off, non-finite ones first."""
    found: list[tuple[float, int]] = []
    for start, x, y in _blocks(a, e):
        off = _distance(x, y).reshape(-1)
        top = np.argpartition(-off, min(WORST, off.size) - 1)[:WORST]
        found += [(-float(off[i]), start * e.shape[-1] + int(i)) for i in top if off[i] > 0.0]
        found = sorted(found)[:WORST]
    return np.array([index for _, index in found], np.int64)


def _distance(x: Rows, y: Rows) -> Rows:
    """|x - y|; 0 where both are the same infinity or NaN, Inf where only one is."""
    with np.errstate(invalid="ignore"):
        off = np.abs(x - y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def _blocks(a: Values, e: Values) -> Iterator[tuple[int, Rows, Rows]]:
    """Yield (first row, actual, expected) in float64, about ``_BLOCK`` elements at a time."""
    step = max(_BLOCK // max(e.shape[-1], 1), 1)
    for start in range(0, e.shape[0], step):
        part = slice(start, start + step)
        yield start, a[part].astype(np.float64), e[part].astype(np.float64)


def _strips(
    a: Values, e: Values, shape: tuple[int, ...], dims: tuple[str, ...], scale: Scale
) -> Iterator[Strip]:
    shares = scale.shares.reshape(shape[:-1])
    for axis, dim in enumerate(dims[:-1]):
        if shape[axis] > 1:
            others = tuple(i for i in range(shares.ndim) if i != axis)
            yield _strip(dim, shares.max(axis=others))
    if shape and shape[-1] > 1:
        yield _strip(dims[-1], _columns(a, e, scale.limits))


def _columns(a: Values, e: Values, limits: Rows) -> Rows:
    """Share of the limit that each index of the last axis uses, over (some of) the rows."""
    rows = _spread(e.shape[0], max(_COLUMN_SAMPLE // e.shape[1], 1))
    squared, allowed = np.zeros(e.shape[1]), float(np.sum(limits[rows] ** 2)) / e.shape[1]
    for _, x, y in _blocks(a[rows], e[rows]):
        squared += (_distance(x, y) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squared == 0.0, 0.0, np.sqrt(squared / allowed))


def _strip(dim: str, used: Rows) -> Strip:
    step = -(-len(used) // CELLS)
    padded = np.concatenate([used, np.zeros(-len(used) % step)])
    return Strip(dim, len(used), step, _rounded(padded.reshape(-1, step).max(axis=1), 3))


def _histogram(z: Rows) -> Histogram | None:
    zeros = int(np.count_nonzero(z == 0.0))
    with np.errstate(divide="ignore"):
        decades = np.clip(np.log10(z[z > 0.0]), LOWEST, HIGHEST)
    if not len(decades):
        return Histogram(0.0, (), zeros)
    bins = np.floor((decades - LOWEST) * _BINS_PER_DECADE).astype(np.int64)
    first, last = int(bins.min()), int(bins.max())
    counts = np.bincount(bins - first, minlength=last - first + 1)
    low = LOWEST + first / _BINS_PER_DECADE
    return Histogram(low, tuple(int(count) for count in counts), zeros)


def _quantiles(z: Rows) -> Rows:
    if not len(z):
        return np.zeros(0)
    capped = np.clip(z, -1e30, 1e30)  # between two infinities there is no quantile
    return np.quantile(capped, probabilities(len(z)))


def probabilities(count: int) -> list[float]:
    """Evenly spaced probabilities, and those of the smallest and the largest element."""
    if not count:
        return []
    inner = [(i + 0.5) / QUANTILES for i in range(QUANTILES)]
    edge = 0.5 / count
    return [edge, *(p for p in inner if edge < p < 1.0 - edge), 1.0 - edge]


def _extremes(
    a: Values, e: Values, worst: NDArray[np.int64], shape: tuple[int, ...], dims: tuple[str, ...]
) -> Iterator[Extreme]:
    for flat in worst:
        where = np.unravel_index(int(flat), shape) if shape else ()
        x, y = float(a.reshape(-1)[flat]), float(e.reshape(-1)[flat])
        named = ", ".join(f"{dim} {int(i)}" for dim, i in zip(dims, where, strict=True))
        yield Extreme(named, *_rounded(np.array([x, y, x - y]), 6))


def _rounded(values: Rows, digits: int = 4) -> tuple[float, ...]:
    """Values with so many significant digits: a report is read, not computed with."""
    return tuple(float(f"{value:.{digits}g}") for value in values.tolist())
