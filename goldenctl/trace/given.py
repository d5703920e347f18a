"""Tensors of single calls that a map names: what a call reads or writes is what it says."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from goldenctl.errors import UsageError, printable
from goldenctl.trace.args import outputs
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.norms import by_order
from goldenctl.trace.opmap import Named, OpMap
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place

Given = Mapping[int, list[Named]]  # by the number of the call


def given_tensors(ops: OpMap, tracing: Tracing, process: int) -> Given:
    """Return what a map says of one process's calls; UsageError for a call or a tensor that is
    not there, naming the map."""
    calls = {call.number: call for call in tracing.calls.calls}
    found: dict[int, list[Named]] = {}
    for named in ops.named:
        if named.process != process:
            continue
        _check_place(ops, tracing, named.place)
        for number in named.calls:
            names = [arg.name for arg in calls[number].args] if number in calls else []
            if named.tensor not in names:
                has = f"has no {printable(named.tensor)}, but {', '.join(names)}"
                message = f"{ops.path}: call {number} {has if names else 'is not in the log'}"
                raise UsageError(message, hint="goldenctl inspect shows the calls of a log")
            found.setdefault(number, []).append(named)
    return found


def _check_place(ops: OpMap, tracing: Tracing, name: str) -> None:
    sublayer, _, tap = name.rpartition(".")
    flow = next(iter(tracing.flows.values()))
    node = flow.nodes.get(Place(flow.case, sublayer, tap))
    if node is None or node.dims[1] == "head":
        what = "is not a tensor of the golden" if node is None else "does not lie token by token"
        message = f"{ops.path}: {printable(name)}: {what}"
        raise UsageError(message, hint="such as layers.00.attention.q_proj; trace --list has some")


def name_given(tracing: Tracing, call: Call, given: Given) -> bool:
    """Store what a map says of a call; whether it says what the call writes, so that nothing is
    left to find out.

    Its elements are those of the pass's tokens in order. What has another size is noted.
    """
    told = False
    for named in given.get(call.number, ()) if tracing.pass_ is not None else ():
        arg = next(arg for arg in call.args if arg.name == named.tensor)
        sublayer, _, tap = named.place.rpartition(".")
        place = Place(tracing.flow.case, sublayer, tap)
        tags = by_order(tracing, tracing.number(place), arg.shape)
        if (tags < 0).any():
            _note_size(tracing, call, arg, named)
        elif arg.io == "in":
            tracing.memory.retag(arg, tags, arg.before or "")
        else:
            told = True
            tracing.yields(call, arg, tags)
    for arg in outputs(call) if told else ():
        if arg.name not in {named.tensor for named in given[call.number]}:
            tracing.forget(arg)
    return told


def _note_size(tracing: Tracing, call: Call, arg: Arg, named: Named) -> None:
    place = Place(tracing.flow.case, *named.place.rpartition(".")[::2])
    size = tracing.values.row_size(tracing.number(place)) * len(tracing.now.tokens)
    said = f"call {call.number}: {arg.name} has {prod(arg.shape)} elements, {named.place} of these"
    tracing.notes[f"{said} tokens has {size}: not taken for it"] = None
