"""Element by element: residuals, biases added later, and the gate of an MLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from goldenctl.trace.args import inputs, outputs
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.partial import added
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place, flats_of, numbers_of, tag_of

_HIDES = -1e4  # what a mask adds at least


def add_call(tracing: Tracing, call: Call) -> None:
    """``c, a, b``."""
    (c, *_), (a, b, *_) = outputs(call), inputs(call)
    add(tracing, call, c, (a, b))


def add(tracing: Tracing, call: Call, out: Arg, args: tuple[Arg, Arg]) -> Tags:
    """Name a sum; return the tags of its result."""
    both = [tracing.tags(arg) for arg in args]
    found = [_first(tracing, tags) for tags in both]
    weights = [p for p in found if p is not None and p.is_weight]
    if weights:
        return _biased(tracing, call, out, both)
    parts = [part for tags in both for part in tracing.values.parts(tags)]
    if len(parts) == len(both) and len({part.place for part in parts}) == 1:
        return added(tracing, call, out, both[0], parts)
    if _is_mask(tracing, args, found):
        tags = both[0] if found[0] is not None else both[1]
        tracing.memory.write(out, tags)  # the golden's scores are those without the mask
        return tags
    place = tracing.choose("add", [p for p in found if p is not None])
    if place is None:
        tracing.not_explained(call)
        tracing.forget(out)
        return np.full(out.shape, UNKNOWN, np.int64)
    _check_pair(tracing, place, found)
    tags = elementwise(tracing, place, both)
    tracing.yields(call, out, tags)
    return tags


def swiglu(tracing: Tracing, call: Call) -> None:
    """``c, a, b``: the op activates its second input."""
    (c, *_), (a, b, *_) = outputs(call), inputs(call)
    _gated(tracing, call, c, (tracing.tags(a), tracing.tags(b)))


def silu_and_mul(tracing: Tracing, call: Call) -> None:
    """``output, input``: the first half of the last axis is activated."""
    (y, *_), (x, *_) = outputs(call), inputs(call)
    gate, up = np.split(tracing.tags(x), 2, axis=-1)
    _gated(tracing, call, y, (up, gate))


def _gated(tracing: Tracing, call: Call, out: Arg, both: tuple[Tags, Tags]) -> None:
    found = [_first(tracing, tags) for tags in both]
    place = tracing.choose("swiglu", [p for p in found if p is not None])
    if place is None:
        tracing.not_explained(call)
        tracing.forget(out)
        return
    up, gate = tracing.flow.nodes[place].inputs
    if found == [gate, up]:
        for step in tracing.now.names:
            tracing.reads[place, 0, step], tracing.reads[place, 1, step] = gate, up
        text = "up_proj is activated in place of gate_proj: gate_proj's bytes are used as up_proj"
        tracing.find(place, "weight", text)
    else:
        for index, tags in enumerate(both):
            tracing.check_input(place, index, tracing.values.found(tags))
    tracing.yields(call, out, elementwise(tracing, place, both))


def elementwise(tracing: Tracing, place: Place, operands: Sequence[Tags]) -> Tags:
    """Return the tags of an output from the first operand that lies as it does."""
    number = tracing.number(place)
    shape = tracing.values.shape(number)
    out = np.full(operands[0].shape, UNKNOWN, np.int64)
    for tags in operands:
        numbers = numbers_of(tags)
        for source in np.unique(numbers[numbers >= 0]):
            if tracing.values.shape(int(source)) == shape:
                mine = (numbers == source) & (out == UNKNOWN)
                out[mine] = tag_of(number, flats_of(tags[mine]))
    return out


def _check_pair(tracing: Tracing, place: Place, found: list[Place | None]) -> None:
    """Hold a sum's two inputs, in either order, against the residual and what is added."""
    expected = list(tracing.flow.nodes[place].inputs)
    left = [p for p in found if p is not None]
    for each in list(left):
        if each in expected:
            expected.remove(each)
            left.remove(each)
    for each, missing in zip(left, expected, strict=False):
        index = tracing.flow.nodes[place].inputs.index(missing)
        tracing.check_input(place, index, [each])


def _biased(tracing: Tracing, call: Call, out: Arg, both: Sequence[Tags]) -> Tags:
    """A bias that is added to the product's result: it stays the same tensor."""
    weight, value = both
    if not _is_weight(tracing, weight):
        weight, value = value, weight
    note_bias(tracing, weight, value)
    tracing.yields(call, out, value)
    return value


def note_bias(tracing: Tracing, bias: Tags, result: Tags) -> None:
    """Note that a linear layer's result has its bias, and whether it is its own."""
    names = {p.tap for p in tracing.values.found(bias) if p is not None and p.is_weight}
    for place in tracing.values.found(result):
        node = tracing.flow.nodes.get(place) if place is not None else None
        if node is None or place is None or len(node.op.weights) < 2:
            continue
        tracing.biased.add(place)
        mine = numbers_of(result) == tracing.number(place)
        own = {p.tap for p in tracing.values.found(bias[mine]) if p is not None and p.is_weight}
        if node.op.weights[1] not in own and names:
            other = next(iter(own or names))
            tracing.find(place, "weight", f"{place.tap} adds {other}, not its own bias")


def _is_weight(tracing: Tracing, tags: Tags) -> bool:
    place = _first(tracing, tags)
    return place is not None and place.is_weight


def _is_mask(tracing: Tracing, args: tuple[Arg, Arg], found: list[Place | None]) -> bool:
    """Whether scores are added to a mask: the other operand is nobody's and hides elements, or
    leaves all of them as they are."""
    for arg, place, other in zip(args, found, found[::-1], strict=True):
        if place is None and other is not None and other.tap == "scores":
            if not tracing.calls.holds(arg.before):
                return False
            mask = tracing.calls.before(arg).astype(np.float32)
            return bool(((mask == 0) | (mask < _HIDES)).all())
    return False


def _first(tracing: Tracing, tags: Tags) -> Place | None:
    return next((p for p in tracing.values.found(tags) if p is not None), None)
