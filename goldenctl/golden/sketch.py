"""The sketch: about 1 KiB of a tensor, from which its distance to another is estimated.

The tensor is folded into 64 sums by a count-sketch (Charikar, Chen, Farach-Colton 2002): each
element goes, with a sign, to one of 64 buckets, both taken from a fixed PCG64 stream by the
element's index. Sketches are linear, so the norm of the difference of two is an estimate of
the norm of the difference of the tensors, with a relative standard error of at most 9 %. The
same sums, kept for up to 32 groups of consecutive rows, show a fault in a single row.

A sketch is the same on every machine and NumPy version: the sums are float64, in the order of
the elements (``numpy.bincount``). docs/check.md says what a sketch can and cannot tell.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.golden.count_sketch import BUCKETS, Count, Doubles, NonFinite, fold
from goldenctl.golden.schema import BUDGET_SCOPES

ROW_GROUPS = 32
ROW_PROJECTIONS = 3
TOP_COUNT = 5
TOP_ROWS = 4
# What rounding the stored numbers adds to a relative distance: float32 for the whole, steps
# of 2**-12 of a group's norm for the groups.
RESOLUTION = 2.0**-24
ROW_RESOLUTION = 2.0**-12

_LARGEST = np.finfo(np.float64).max.item()
Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
Size = Annotated[float, Meta(ge=0.0, le=_LARGEST)]
Base64 = Annotated[str, Meta(max_length=512)]
_ROW_TYPE = np.dtype([("norm", "<u2"), ("projections", "<i2", (ROW_PROJECTIONS,))])
_LIMIT_LOWEST = (127 - 28) << 3  # a byte holds 2**-28 to 2**4 in eighths of an octave


class TopRow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The largest values of one row, largest first; ``row`` counts rows of the last axis."""

    row: Count
    ids: Annotated[tuple[Count, ...], Meta(max_length=TOP_COUNT)]
    values: Annotated[tuple[Finite, ...], Meta(max_length=TOP_COUNT)]

    @property
    def margin(self) -> float:
        """How far the second is below the first; Inf when there is no second."""
        return self.values[0] - self.values[1] if len(self.values) > 1 else math.inf


class Sketch(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A tensor in about 1 KiB. Elements that are not finite count as zero in all sums.

    ``projection`` is 64 float32, ``rows`` up to 32 records of a norm and three projections,
    ``row_budget`` one byte for each scope and group, all base64 of little-endian bytes;
    ``budget`` is the relative L2 error that the recorded budget grants, by scope.
    """

    norm: Size
    projection: Base64
    rows: Base64
    budget: dict[str, Size] | None = None
    row_budget: Base64 = ""
    non_finite: NonFinite | None = None
    top: Annotated[tuple[TopRow, ...], Meta(max_length=TOP_ROWS)] = ()


@dataclass(frozen=True)
class Distance:
    """How far one tensor is from another, estimated from their sketches.

    ``rel_l2`` is ||a-e|| / ||e||, Inf when only e is zero. ``row_errors`` are the estimated
    ||a-e|| of each group of rows over ||e|| of the whole tensor, ``row_norm_changes`` how far
    the norms of a group differ, which is a lower bound of the same.
    """

    rel_l2: float
    norm_ratio: float
    row_errors: Doubles
    row_norm_changes: Doubles
    row_norms: Doubles
    same_places: bool


def sketch_of(
    values: NDArray[Any], *, row_limits: Doubles | None = None, top: bool = False
) -> Sketch:
    """Sketch a float tensor in one pass, with a few MiB of memory whatever its size.

    ``row_limits`` [scope, row] is the L2 error that a budget grants each row of the last axis;
    ``top`` keeps the largest values of the last rows (for logits). Raises ValueError for a
    type or limits that do not fit.
    """
    if not (values.dtype.name in DTYPES and DTYPES[values.dtype.name].is_float):
        msg = f"a sketch is of floats, not of {values.dtype}"
        raise ValueError(msg)
    flat = np.require(values, requirements="C").reshape(-1)
    edges = _group_edges(values.shape)
    sums = fold(flat, edges)
    norms = np.sqrt(sums.squares)
    norm = math.sqrt(math.fsum(sums.squares))
    if norm:
        scaled, ratios = sums.buckets / norm, norms / norm
    else:
        scaled, ratios = sums.buckets, norms
    limits: dict[str, Any] = {}
    if row_limits is not None:
        limits = _limits(row_limits, values.shape, norm)
    return Sketch(
        norm=min(norm * sums.scale, _LARGEST),
        projection=_encode(_ordered_sum(scaled).astype("<f4")),
        rows=_encode(_pack_rows(scaled, ratios)),
        non_finite=sums.non_finite,
        top=tuple(_top_rows(values)) if top else (),
        **limits,
    )


@np.errstate(over="ignore", invalid="ignore")  # what comes of it, Inf or NaN, is no pass
def distance(actual: Sketch, expected: Sketch) -> Distance:
    """Estimate how far two tensors of one shape are from each other.

    Raises ValueError when a sketch cannot be read or the two are of different shapes.
    """
    a, e = _projection(actual), _projection(expected)
    (a_norms, a_rows), (e_norms, e_rows) = _rows(actual), _rows(expected)
    if a_norms.size != e_norms.size:
        msg = f"the sketches have {a_norms.size} and {e_norms.size} groups of rows"
        raise ValueError(msg)
    if expected.norm == 0.0:
        rel_l2 = 0.0 if actual.norm == 0.0 else math.inf
        ratio = 1.0 if actual.norm == 0.0 else math.inf
    else:
        ratio = actual.norm / expected.norm
        rel_l2 = float(np.sqrt(np.sum((a * ratio - e) ** 2)))
    finite_ratio = ratio if math.isfinite(ratio) else 1.0
    errors = a_rows * finite_ratio - e_rows
    return Distance(
        rel_l2=rel_l2,
        norm_ratio=ratio,
        row_errors=np.sqrt(np.mean(errors**2, axis=1)),
        row_norm_changes=np.abs(a_norms * finite_ratio - e_norms),
        row_norms=np.maximum(a_norms * finite_ratio, e_norms),
        same_places=actual.non_finite == expected.non_finite,
    )


def check_sketch(sketch: Sketch, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless everything in the sketch can be read and fits ``shape``."""
    _projection(sketch)
    groups = len(_group_edges(shape)) - 1
    norms, _ = _rows(sketch)
    sizes = [norms.size]
    if sketch.row_budget:
        sizes += [row_budget(sketch, scope).size for scope in BUDGET_SCOPES]
    if set(sizes) != {groups}:
        msg = f"{sizes[-1]} groups of rows, expected {groups} for shape {list(shape)}"
        raise ValueError(msg)


def row_budget(sketch: Sketch, scope: str) -> Doubles:
    """Return what the budget grants each group of rows, over the norm of the whole tensor.

    Raises ValueError when it cannot be read.
    """
    codes = _decode(sketch.row_budget, np.dtype("u1"), "row_budget")
    if scope not in BUDGET_SCOPES or codes.size % len(BUDGET_SCOPES):
        msg = f"row_budget has {codes.size} bytes, expected one for each group and scope"
        raise ValueError(msg)
    bits = (codes.astype(np.uint32) + _LIMIT_LOWEST) << np.uint32(20)
    limits = bits.view(np.float32).astype(np.float64).reshape(len(BUDGET_SCOPES), -1)
    return np.asarray(limits[BUDGET_SCOPES.index(scope)])


def group_rows(shape: tuple[int, ...], group: int) -> tuple[int, int]:
    """Return the first row of a group and the row after its last."""
    edges, length = _group_edges(shape), _row_length(shape)
    return int(edges[group]) // length, int(edges[group + 1]) // length


def _row_length(shape: tuple[int, ...]) -> int:
    """A row is the last axis; each element of a vector is a row of its own."""
    return max(1, shape[-1]) if len(shape) > 1 else 1


def _group_edges(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the first element of each group of rows, and one past the last."""
    length = _row_length(shape)
    rows = math.prod(shape) // length
    groups = min(rows, ROW_GROUPS)
    return np.array([group * rows // max(groups, 1) * length for group in range(groups + 1)])


def _ordered_sum(values: Doubles) -> Doubles:
    """Add along the first axis from first to last, on every machine."""
    return np.cumsum(values, axis=0)[-1] if len(values) else np.zeros(values.shape[1:])


def _row_projections(buckets: Doubles) -> Doubles:
    """Fold each group's buckets into a few sums, whose signs are bits of the bucket's number."""
    number = np.arange(BUCKETS)
    signs = [1.0 - 2.0 * ((number >> bit) & 1) for bit in range(ROW_PROJECTIONS)]
    return np.stack([_ordered_sum((buckets * sign).T) for sign in signs], axis=1)


def _pack_rows(buckets: Doubles, norms: Doubles) -> NDArray[Any]:
    """Store norms as 16 bits of float32 and projections in steps of 2**-12 of the norm."""
    packed = np.zeros(len(norms), _ROW_TYPE)
    bits = norms.astype(np.float32).view(np.uint32)
    packed["norm"] = (bits + np.uint32(1 << 14)) >> np.uint32(15)
    steps = _row_norms(packed)[:, None] * ROW_RESOLUTION
    projections = _row_projections(buckets)
    counts = np.divide(projections, steps, out=np.zeros_like(projections), where=steps > 0)
    packed["projections"] = np.clip(np.rint(counts), -32767, 32767)
    return packed


def _row_norms(packed: NDArray[Any]) -> Doubles:
    bits = packed["norm"].astype(np.uint32) << np.uint32(15)
    return bits.view(np.float32).astype(np.float64)


def _rows(sketch: Sketch) -> tuple[Doubles, Doubles]:
    """Return each group's norm and projections, over the norm of the whole tensor."""
    packed = _decode(sketch.rows, _ROW_TYPE, "rows")
    norms = _row_norms(packed)
    return norms, packed["projections"] * (norms[:, None] * ROW_RESOLUTION)


def _projection(sketch: Sketch) -> Doubles:
    values = _decode(sketch.projection, np.dtype("<f4"), "projection").astype(np.float64)
    if values.size != BUCKETS:
        msg = f"projection has {values.size} numbers, expected {BUCKETS}"
        raise ValueError(msg)
    return values


def _limits(row_limits: Doubles, shape: tuple[int, ...], norm: float) -> dict[str, Any]:
    """Return ``budget`` and ``row_budget``: root sums of squares of the rows' limits."""
    edges = _group_edges(shape) // _row_length(shape)
    if row_limits.shape != (len(BUDGET_SCOPES), int(edges[-1]) if edges.size else 0):
        msg = f"row limits {row_limits.shape} do not fit a tensor of shape {shape}"
        raise ValueError(msg)
    if not norm or not np.isfinite(row_limits).all():
        return {}
    squares = np.zeros((len(BUDGET_SCOPES), edges.size - 1))
    for group, (first, last) in enumerate(pairwise(edges)):
        squares[:, group] = _ordered_sum((row_limits[:, first:last] ** 2).T)
    totals = np.sqrt(_ordered_sum(squares.T)) / norm
    bits = (np.sqrt(squares) / norm).astype(np.float32).view(np.uint32).astype(np.int64)
    codes = ((bits + (1 << 20) - 1) >> 20) - _LIMIT_LOWEST
    return {
        "budget": {
            scope: float(f"{total:.3e}") for scope, total in zip(BUDGET_SCOPES, totals, strict=True)
        },
        "row_budget": _encode(np.clip(codes, 0, 255).astype("u1")),
    }


def _top_rows(values: NDArray[Any]) -> Iterator[TopRow]:
    """Yield the largest finite values of the last rows; ties go to the smaller id."""
    rows = values.reshape(-1, values.shape[-1]) if values.size else values.reshape(0, 1)
    for number in range(max(0, len(rows) - TOP_ROWS), len(rows)):
        row = rows[number].astype(np.float64)
        row = np.where(np.isfinite(row), row, -np.inf)
        ids = np.argsort(-row, kind="stable")[:TOP_COUNT]
        ids = ids[np.isfinite(row[ids])]
        if ids.size:
            yield TopRow(row=number, ids=tuple(map(int, ids)), values=tuple(map(float, row[ids])))


def _encode(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _decode(text: str, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        msg = f"{what} is not base64"
        raise ValueError(msg) from error
    if len(raw) % dtype.itemsize:
        msg = f"{what} has {len(raw)} bytes, which is not a multiple of {dtype.itemsize}"
        raise ValueError(msg)
    return np.frombuffer(raw, dtype)
