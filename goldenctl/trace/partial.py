"""Sums over some columns of a linear layer's weight, of which others are still to be added.

A tensor-parallel rank has a block of o_proj's columns and the inputs of its own heads: what it
computes is the layer's output only when the other ranks' sums are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Part, Place, flats_of, numbers_of, tag_of


def block_of(tracing: Tracing, place: Place, first: int, columns: int) -> Part:
    """Return the sum over so many columns of the op's weight."""
    width = tracing.book.checkpoint.tensor(tracing.flow.nodes[place].op.weights[0]).shape[-1]
    return Part(place, frozenset({(first, first + columns)}), width)


def added(tracing: Tracing, call: Call, out: Arg, tags: Tags, parts: Sequence[Part]) -> Tags:
    """Store a sum of parts of one op; return its tags.

    ``tags`` say which elements of the op's output they are. When all columns are there it is
    the op's output.
    """
    place = parts[0].place
    blocks = [block for part in parts for block in part.blocks]
    if len(set(blocks)) < len(blocks):
        tracing.find(place, "doubled", f"{place.tap}: one block of columns is added twice")
    whole = Part(place, frozenset(blocks), parts[0].width)
    number = tracing.number(place)
    if not whole.is_complete:
        number = tracing.values.part_number(whole, number)
    result = np.where(tags < 0, UNKNOWN, tag_of(number, flats_of(tags)))
    tracing.yields(call, out, result)
    return result


def check_block(tracing: Tracing, place: Place, tags: Tags, part: Part) -> None:
    """Column k of a weight must meet element k of its input: ``tags`` are [n, columns]."""
    source = tracing.flow.nodes[place].inputs[0]
    mine = numbers_of(tags) == tracing.number(source)
    ((first, last),) = part.blocks
    met = flats_of(tags) % tracing.values.row_size(tracing.number(source))
    wrong = mine & (met != np.arange(first, last))
    if wrong.any():
        text = f"columns {first}-{last - 1} of {place.tap}'s weight meet {source.tap}'s from "
        tracing.find(place, "weight", f"{text}{int(met[tuple(np.argwhere(wrong)[0])])} on")
