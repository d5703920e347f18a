"""The view of ``goldenctl inspect`` of a traced program's log: its calls, one a line."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from goldenctl.records.units import human_bytes, human_ns, plural
from goldenctl.report.blocks import Block, Facts, numbers, table
from goldenctl.trace.calls import Arg, Call, Calls

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}


def calls_view(calls: Calls) -> list[Block]:
    """Return the program, what it called, and what there is to know of the log."""
    launches = list(calls.calls)
    made = table(
        (*numbers("call", "thread"), "op", "tensors", "scalars", *numbers("time")),
        (_row(calls, call) for call in launches),
    )
    return [Facts(tuple(_head(calls, launches))), made]


def _head(calls: Calls, launches: list[Call]) -> Iterator[tuple[str, str]]:
    start = calls.start
    counts = Counter(call.op for call in launches).most_common()
    ops = ", ".join(f"{op} {count}" for op, count in counts)
    yield "file", str(calls.path)
    yield "program", f"{shlex.join(start.program)} (process {start.pid})"
    yield "infinicore", start.infiniop
    size = human_bytes(calls.path.stat().st_size)
    yield "size", f"{size}, {plural(len(calls.weights), 'weight')} of the checkpoint by digest"
    yield "calls", f"{len(launches)}{f': {ops}' if ops else ''}"
    if any(arg.io != "in" for call in launches for arg in call.args):
        yield "tensors", "y* is written, y+ is read and written, y is read"
    if calls.end is not None and calls.end.skipped:
        yield "left out", f"{plural(calls.end.skipped, 'call')} that was not asked for"
    if calls.other:
        yield "ended", f"it loads {calls.other}, another InfiniCore than was meant"
    elif calls.end is None:
        torn = f", {calls.torn_bytes} bytes of a torn record" if calls.torn_bytes else ""
        yield "ended", f"by a crash or a signal: the log has no end{torn}"
    yield from (("note", _note(note.function, note.text)) for note in calls.notes)


def _note(function: str, text: str) -> str:
    return f"{function}: {text}" if function else text


def _row(calls: Calls, call: Call) -> tuple[str, ...]:
    device = f" on {call.device}:{call.device_id}" if call.device != "cpu" else ""
    failed = f" failed ({call.status})" if call.status else ""
    scalars = " ".join(f"{name}={value}" for name, value in call.scalars.items())
    tensors = " ".join(_arg(calls, arg) for arg in call.args)
    number, thread = str(call.number), str(call.thread)
    return number, thread, f"{call.op}{device}{failed}", tensors, scalars, human_ns(call.time_ns)


def _arg(calls: Calls, arg: Arg) -> str:
    """Write a tensor as ``y=f32[6, 64]``, of the contents with a reason where one is missing."""
    name = f"{arg.name}{'' if arg.io == 'in' else '*' if arg.io == 'out' else '+'}"
    weight = " weight" if calls.weights.keys() & {arg.before, arg.after} else ""
    missing = f" ({arg.left_out})" if arg.left_out else ""
    shape = ",".join(map(str, arg.shape))
    return f"{name}={_SHORT.get(arg.dtype, arg.dtype)}[{shape}]{weight}{missing}"
