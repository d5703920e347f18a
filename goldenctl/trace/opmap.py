"""A map that says by hand what nothing shows: which known operator an engine's own one stands for,
and which tensor of the golden a call reads or writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from goldenctl.errors import UsageError, printable
from goldenctl.model.tomlfile import read_toml
from goldenctl.trace.calls import Call, Calls

_MOST_LISTED = 40
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "RMSNorm": ("y", "x", "w"),
    "AddRMSNorm": ("y", "residual_out", "a", "b", "weight"),
    "Gemm": ("c", "a", "b"),
    "RoPE": ("y", "x", "pos_ids", "sin_table", "cos_table"),
    "CausalSoftmax": ("y", "x"),
    "SwiGLU": ("c", "a", "b"),
    "SiluAndMul": ("output", "input"),
    "Add": ("c", "a", "b"),
    "Rearrange": ("y", "x"),
    "FlashAttention": ("out", "q", "k", "v"),
}


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"op": "as"}):
    """``function`` computes what InfiniCore's operator ``op`` does; ``args`` are the names of its
    own tensors in that operator's order."""

    function: str
    op: str
    args: tuple[str, ...]


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"place": "is"}):
    """The tensor ``tensor`` of the calls of these numbers is the golden's ``place``, such as
    ``layers.00.attention.q_proj``; ``process`` counts a program's logs from 1."""

    calls: tuple[int, ...]
    tensor: str
    place: str
    process: int = 1


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    map_version: int
    op: tuple[Entry, ...] = ()
    tensor: tuple[Named, ...] = ()


@dataclass(frozen=True)
class OpMap:
    """Operators by function, and single tensors; empty without a file."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    named: tuple[Named, ...] = ()
    path: Path = Path()

    def applied(self, calls: Calls) -> Calls:
        """Return the calls, each as the operator that it stands for."""
        if not self.entries:
            return calls
        events = tuple(self._known(e) if isinstance(e, Call) else e for e in calls.events)
        return replace(calls, events=events)

    def _known(self, call: Call) -> Call:
        entry = self.entries.get(call.function)
        if entry is None:
            return call
        by_name = {arg.name: arg for arg in call.args}
        names = _KNOWN[entry.op]
        args = tuple(
            msgspec.structs.replace(by_name[own], name=name)
            for own, name in zip(entry.args, names, strict=True)
            if own in by_name
        )
        return msgspec.structs.replace(call, op=entry.op, args=args)


def load_map(path: Path | None) -> OpMap:
    """Read a map; UsageError naming the file and what is wrong with it."""
    if path is None:
        return OpMap()
    try:
        found = msgspec.convert(read_toml(path), _File)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    except ValueError as error:
        message = f"{path}: not a map of operators: {error}"
        raise UsageError(message, hint="trace --list prints one to start from") from error
    if found.map_version != 1:
        message = f"{path}: map_version is {found.map_version}, expected 1"
        raise UsageError(message)
    for entry in found.op:
        if entry.op not in _KNOWN:
            message = (
                f"{path}: {printable(entry.function)}: as {printable(entry.op)!r} is not known"
            )
            raise UsageError(message, hint=f"one of {', '.join(_KNOWN)}")
        if len(entry.args) != len(_KNOWN[entry.op]):
            expected = ", ".join(_KNOWN[entry.op])
            message = f"{path}: {printable(entry.function)}: args stand for {expected}: expected "
            message += f"{len(_KNOWN[entry.op])}, got {len(entry.args)}"
            raise UsageError(message)
    return OpMap({entry.function: entry for entry in found.op}, found.tensor, path)


def listing(
    unexplained: Mapping[str, int],
    strangers: Sequence[Call],
    absent: Sequence[str],
    logs: Sequence[Calls],
) -> Iterator[str]:
    """Yield a map to start from: a commented entry for each function that is no op of the model,
    its calls, and the golden's tensors that nothing computes."""
    yield from _operators(unexplained, logs)
    if absent and strangers:
        yield "\n# Or say of single tensors what they are, by the numbers of calls, as goldenctl"
        yield "# inspect shows them in the log (--keep-calls). Nothing computes these tensors:"
        yield from (f"#   {name}" for name in _first(list(absent)))
        yield "# These calls are no op of the model:"
        yield from (f"#   {c.number}: {_shown(c)}" for c in _first(list(strangers)))
        outs = (arg.name for arg in strangers[0].args if arg.io != "in")
        yield "# [[tensor]]"
        yield f"# calls = [{strangers[0].number}]"
        yield f"# tensor = {json.dumps(next(outs, ''))}"
        yield f"# is = {json.dumps(absent[0])}"


def _first(items: list[Any]) -> list[Any]:
    return items[:_MOST_LISTED]


def _shown(call: Call) -> str:
    tensors = "; ".join(f"{a.io} {a.name} {a.dtype} {list(a.shape)}" for a in call.args)
    return printable(f"{call.function}: {tensors}")


def _operators(unexplained: Mapping[str, int], logs: Sequence[Calls]) -> Iterator[str]:
    yield "map_version = 1"
    yield "# What your engine's own operators are; take the # away and complete what is so."
    yield "# 'as' is one of these, args are its tensors in this order by your operator's names:"
    for op, args in _KNOWN.items():
        yield f"#   {op}: {', '.join(args)}"
    if not unexplained:
        yield "# Every call of this program is known already."
    for function, count in unexplained.items():
        each = (call for calls in logs for call in calls.calls)
        call = next((call for call in each if call.function == function), None)
        if call is None:
            continue
        shown = "; ".join(f"{a.io} {a.name} {a.dtype} {list(a.shape)}" for a in call.args)
        yield f"\n# {printable(function)}, {count} calls, the first: {printable(shown)}"
        yield "# [[op]]"
        yield f"# function = {json.dumps(function)}"
        yield '# as = ""'
        yield f"# args = {json.dumps([arg.name for arg in call.args])}"
