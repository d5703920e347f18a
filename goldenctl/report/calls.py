"""The view of ``goldenctl inspect`` of a traced program's log: its calls, one a line."""

from __future__ import annotations

import shlex
from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.records.units import human_bytes, human_ns, plural
from goldenctl.trace.calls import Arg, Call, Calls

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}


def calls_view(calls: Calls) -> RenderableType:
    """Show the program, what it called, and what there is to know of the log."""
    launches = list(calls.calls)
    table = Table(box=None, pad_edge=False)
    for title, justify in (("call", "right"), ("thread", "right"), ("op", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for title in ("tensors", "scalars"):
        table.add_column(title, overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for call in launches:
        table.add_row(*(Text(printable(cell)) for cell in _row(calls, call)))
    return Group(*(Text(printable(line)) for line in _head(calls, launches)), Text(), table)


def _head(calls: Calls, launches: list[Call]) -> list[str]:
    start = calls.start
    counts = Counter(call.op for call in launches).most_common()
    ops = ", ".join(f"{op} {count}" for op, count in counts)
    lines = [
        f"file       {calls.path}",
        f"program    {shlex.join(start.program)} (process {start.pid})",
        f"infinicore {start.infiniop}",
        f"size       {human_bytes(calls.path.stat().st_size)}, "
        f"{plural(len(calls.weights), 'weight')} of the checkpoint by digest",
        f"calls      {len(launches)}{f': {ops}' if ops else ''}",
    ]
    if any(arg.io != "in" for call in launches for arg in call.args):
        lines.append("tensors    y* is written, y+ is read and written, y is read")
    if calls.end is not None and calls.end.skipped:
        lines.append(f"left out   {plural(calls.end.skipped, 'call')} that was not asked for")
    if calls.other:
        lines.append(f"ended      it loads {calls.other}, another InfiniCore than was meant")
    elif calls.end is None:
        torn = f", {calls.torn_bytes} bytes of a torn record" if calls.torn_bytes else ""
        lines.append(f"ended      by a crash or a signal: the log has no end{torn}")
    lines += [f"note       {_note(note.function, note.text)}" for note in calls.notes]
    return lines


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
