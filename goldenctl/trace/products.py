"""Products among the calls: linear layers by their weights, scores and contexts by their flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from goldenctl.trace.args import number, outputs
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.layout import DTYPES
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.partial import added, block_of, check_block
from goldenctl.trace.sums import note_bias
from goldenctl.trace.tracing import Tracing, said
from goldenctl.trace.values import Ints, Part, Place, flats_of, numbers_of, tag_of
from goldenctl.trace.weighing import check_weight
from goldenctl.trace.weights import Piece


@dataclass(frozen=True)
class _Columns:
    """Columns of a product that one weight makes: ``names`` are all that it may be. ``block`` are
    the first and the number of the weight's own columns, where these are not all."""

    names: tuple[str, ...]
    first_row: int
    count: int
    block: tuple[int, int] | None = None


def linear(tracing: Tracing, call: Call, activation: Tags, weight: Arg, out: Arg) -> None:
    """Name a product with a weight; ``activation`` is [n, K], ``out`` [n, N]."""
    tags = activation.reshape(-1, activation.shape[-1])
    sources = [p for p in tracing.values.found(tags) if p is not None and not p.is_weight]
    result = np.full((len(tags), out.shape[-1]), UNKNOWN, np.int64)
    before = _before(tracing, out)
    parts: list[Part] = []
    at = 0
    for columns in _columns(tracing, weight, out.shape[-1], sources):
        place = tracing.choose(
            "linear", sources, weights=columns.names, fits=_fits(tracing, columns, weight)
        )
        if place is not None:
            check_weight(
                tracing, place, tracing.flow.nodes[place].op.weights[0], list(columns.names)
            )
            tracing.check_input(place, 0, sources)
            rows = _token_rows(tracing, tags)
            first = rows * tracing.values.row_size(tracing.number(place)) + columns.first_row
            flats = tag_of(tracing.number(place), first[:, None] + np.arange(columns.count))
            flats = np.where(rows[:, None] < 0, UNKNOWN, flats)
            result[:, at : at + columns.count] = flats
            if columns.block is None:
                tracing.done.add(place)
            else:
                parts.append(block_of(tracing, place, *columns.block))
                check_block(tracing, place, tags, parts[-1])
        at += columns.count
    if (result == UNKNOWN).all():
        tracing.not_explained(call)
    _written(tracing, call, out, result, parts, before)
    _check_transposed(tracing, weight, result)


def _written(
    tracing: Tracing, call: Call, out: Arg, result: Tags, parts: list[Part], before: Tags | None
) -> None:
    """Store a product, with what it was added to."""
    if parts:
        earlier = [] if before is None else tracing.values.parts(before)
        mine = [part for part in earlier if part.place == parts[0].place]
        added(tracing, call, out, result.reshape(out.shape), [*mine, *parts])
        return
    if before is not None:
        note_bias(tracing, before.reshape(result.shape), result)
    tracing.yields(call, out, result.reshape(out.shape))


def _before(tracing: Tracing, out: Arg) -> Tags | None:
    """What a product is added to, where it is."""
    return tracing.tags(out) if out.before is not None else None


def _fits(tracing: Tracing, columns: _Columns, weight: Arg) -> Any:
    size = weight.shape[-1] * weight.shape[-2]
    inner = size // max(weight.shape)

    def fits(node: Any) -> bool:
        rows, width = tracing.book.checkpoint.tensor(node.op.weights[0]).shape
        if columns.block is not None:
            wide_enough = width > columns.block[1]
        else:
            wide_enough = width in (inner, *weight.shape)
        return bool(wide_enough and rows >= columns.first_row + columns.count)

    return fits


def _columns(
    tracing: Tracing, weight: Arg, count: int, sources: Sequence[Place]
) -> Iterator[_Columns]:
    """Yield the parts of a product's columns: by the rows of its weight, else by the flow."""
    pieces = tracing.pieces(weight)
    if pieces and sum(p.rows for p in pieces) == count and all(p.tensors for p in pieces):
        for piece in pieces:
            block = _block(tracing, weight, piece)
            yield _Columns(piece.tensors, piece.first_row, piece.rows, block)
        return
    expected = [
        (place, node.op.weights[0])
        for source in sources
        for place in tracing.flow.after(source)
        if (node := tracing.flow.nodes[place]).op.kind == "linear"
    ]
    sizes = [tracing.book.checkpoint.tensor(name).shape[0] for _, name in expected]
    if sum(sizes) == count:
        for size in sizes:
            yield _Columns((), 0, size)
    else:
        yield _Columns(pieces[0].tensors if pieces else (), 0, count)


def _block(tracing: Tracing, weight: Arg, piece: Piece) -> tuple[int, int] | None:
    row_bytes = tracing.calls.weights[weight.before or ""].row_bytes
    count = row_bytes // DTYPES[weight.dtype].itemsize
    whole = tracing.book.checkpoint.tensor(piece.tensors[0]).shape[-1]
    return None if count == whole else (piece.first_column, count)


def _token_rows(tracing: Tracing, tags: Tags) -> Ints:
    """Return which token of the case each row [n, K] is, as row * tokens + token; -1 unknown."""
    rows = np.full(len(tags), -1, np.int64)
    numbers = numbers_of(tags)
    for source in np.unique(numbers[numbers >= 0]):
        if len(tracing.values.shape(int(source))) < 3:
            continue
        mine = (numbers == source).all(-1)
        rows[mine] = flats_of(tags[mine, 0]) // tracing.values.row_size(int(source))
    if (rows < 0).all() and len(rows) == len(tracing.now.tokens):
        width = tracing.now.tokens_of.ids.shape[1] if tracing.now.tokens_of else 0
        rows = tracing.now.rows * width + tracing.now.tokens
    return rows


def _check_transposed(tracing: Tracing, weight: Arg, result: Tags) -> None:
    """A weight whose rows are contracted is used as its transpose; only square ones fit."""
    known = tracing.calls.weights.get(weight.before or "")
    if known is None or len(weight.shape) < 2 or weight.shape[-1] != weight.shape[-2]:
        return
    outer_is_rows = abs(weight.strides[-2]) > abs(weight.strides[-1])
    if outer_is_rows != (known.form == "transposed"):
        for place in tracing.values.found(result):
            if place is not None:
                tracing.find(place, "weight", f"{said(place, place)}'s weight is used transposed")


def gemm(tracing: Tracing, call: Call) -> None:
    """``c, a, b``: alpha * a @ b + beta * c, by batches where there are three axes."""
    (out, *_) = outputs(call)
    a, b = (arg for arg in call.args if arg.io == "in" and arg.pointer)
    if _is_matrix_of_weights(tracing, b):
        linear(tracing, call, tracing.tags(a), b, out)
    elif _is_matrix_of_weights(tracing, a):
        linear(tracing, call, _swapped(tracing.tags(b)), _flip(a), _flip(out))
    else:
        left, right = tracing.tags(a), tracing.tags(b)
        if len(b.shape) == 2 and (right == UNKNOWN).all() and not (left == UNKNOWN).all():
            linear(tracing, call, left, b, out)  # a weight that is nobody's
            return
        attend(tracing, call, (_batched(left), _batched(_swapped(right))), out)


def _is_matrix_of_weights(tracing: Tracing, arg: Arg) -> bool:
    return arg.before in tracing.calls.weights


def _batched(tags: Tags) -> Tags:
    return tags if tags.ndim == 3 else tags[None]


def _swapped(tags: Tags) -> Tags:
    return np.swapaxes(tags, -1, -2)


def _flip(arg: Arg) -> Arg:
    import msgspec

    shape, strides = list(arg.shape), list(arg.strides)
    shape[-1], shape[-2] = shape[-2], shape[-1]
    strides[-1], strides[-2] = strides[-2], strides[-1]
    return msgspec.structs.replace(arg, shape=tuple(shape), strides=tuple(strides))


def attend(tracing: Tracing, call: Call, operands: tuple[Tags, Tags], out: Arg) -> None:
    """Name a product of activations; the operands are [n, rows, k] both, k contracted."""
    left, right = operands
    taps = [{p.tap for p in tracing.values.found(x) if p is not None} for x in (left, right)]
    if taps[0] & {"scores", "probs"}:
        from goldenctl.trace.attention import context

        context(tracing, call, (left, _swapped(right)), out)
    elif any(taps):
        from goldenctl.trace.attention import scores

        scores(tracing, call, (left, right), out, scale=number(call, 1.0, "alpha"))
    else:
        tracing.not_explained(call)
        tracing.forget(out)
