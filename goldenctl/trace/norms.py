"""Norms among the calls: named by their weights, with or without the residual added before."""

from __future__ import annotations

import numpy as np

from goldenctl.trace.args import inputs, number, outputs
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.sums import add
from goldenctl.trace.tracing import Tracing, said
from goldenctl.trace.values import Place, flats_of, numbers_of, tag_of
from goldenctl.trace.weighing import check_weight, weight_names

_CLOSE = 1e-3  # of an epsilon that went through float32


def rms_norm(tracing: Tracing, call: Call) -> None:
    """``y, x, w``."""
    (y, *_), (x, w, *_) = outputs(call), inputs(call)
    _normed(tracing, call, (y, w), tracing.tags(x), x)


def add_rms_norm(tracing: Tracing, call: Call) -> None:
    """``y, residual_out, a, b, w``: the sum is the sublayer's output, its norm the next one's."""
    (y, residual, *_), (a, b, w, *_) = outputs(call), inputs(call)
    summed = add(tracing, call, residual, (a, b))
    _normed(tracing, call, (y, w), summed, residual)


def _normed(tracing: Tracing, call: Call, args: tuple[Arg, Arg], tags: Tags, x: Arg) -> None:
    y, w = args
    width = w.shape[-1]
    sources = [p for p in tracing.values.found(tags) if p is not None]
    names = weight_names(tracing, w)
    place = tracing.choose(
        "rms_norm",
        sources,
        weights=names,
        fits=lambda node: tracing.book.checkpoint.tensor(node.op.weights[0]).shape == (width,),
    )
    if place is None:
        tracing.not_explained(call)
        tracing.forget(y)
        return
    node = tracing.flow.nodes[place]
    check_weight(tracing, place, node.op.weights[0], names)
    tracing.check_input(place, 0, tracing.values.found(tags))
    expected = float(node.op.attrs["epsilon"])
    epsilon = number(call, expected, "epsilon", "eps")
    if abs(epsilon - expected) > _CLOSE * expected:
        text = f"{said(place, place)} has epsilon {epsilon:.6g}, the checkpoint says {expected:.6g}"
        tracing.find(place, "scalar", text)
    tracing.yields(call, y, moved(tracing, place, tags, x))


def moved(tracing: Tracing, place: Place, tags: Tags, x: Arg) -> Tags:
    """Return the tags of an output whose element is made of the input's at the same index.

    Where the input is not known, the rows are taken for the pass's tokens, in order.
    """
    number_ = tracing.number(place)
    shape = tracing.values.shape(number_)
    out = np.full(tags.shape, UNKNOWN, np.int64)
    numbers = numbers_of(tags)
    for source in np.unique(numbers[numbers >= 0]):
        if tracing.values.shape(int(source)) == shape:
            mine = numbers == source
            out[mine] = tag_of(number_, flats_of(tags[mine]))
    if (out == UNKNOWN).all() and tags.size:
        out = by_order(tracing, number_, tags.shape)
    return out


def by_order(tracing: Tracing, number_: int, shape: tuple[int, ...]) -> Tags:
    """Return tags for as many rows as the pass has tokens; unknown where the numbers differ."""
    tokens = tracing.now
    size = tracing.values.row_size(number_)
    if np.prod(shape) != len(tokens.tokens) * size:
        return np.full(shape, UNKNOWN, np.int64)
    width = tracing.values.shape(number_)[1]
    first = (tokens.rows * width + tokens.tokens) * size
    flats = first[:, None] + np.arange(size)
    tags: Tags = tag_of(number_, flats).reshape(shape)
    return tags
