"""The tensors of a call by what they are for, whatever a header calls them."""

from __future__ import annotations

from goldenctl.trace.calls import Arg, Call, Scalar


def outputs(call: Call) -> list[Arg]:
    return [arg for arg in call.args if arg.io != "in" and arg.pointer]


def inputs(call: Call) -> list[Arg]:
    """The tensors that are only read, in the order of the function."""
    return [arg for arg in call.args if arg.io == "in" and arg.pointer]


def named(call: Call, *parts: str) -> Arg | None:
    """Return the first tensor whose name has one of these parts."""
    return next((a for a in call.args if a.pointer and any(p in a.name for p in parts)), None)


def scalar(call: Call, *names: str) -> Scalar | None:
    return next((call.scalars[name] for name in names if name in call.scalars), None)


def number(call: Call, default: float, *names: str) -> float:
    found = scalar(call, *names)
    return float(found) if isinstance(found, int | float) else default
