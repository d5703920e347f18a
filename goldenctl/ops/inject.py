"""Faults put into sublayers: everywhere they fit, or at one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from goldenctl.errors import UsageError
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, Fault, combined, faulty_op


@dataclass(frozen=True)
class Injection:
    """A fault to be put in: everywhere it fits, or only below ``where``.

    That is a sublayer's or an op's dotted name, such as ``layers.03.attention.q_norm``, which
    every step of every case has, or a path in the golden, such as ``cases/default/steps/01``.
    """

    fault: Fault
    where: str = ""

    def __str__(self) -> str:
        return f"{self.fault.name}@{self.where}" if self.where else self.fault.name

    def hits(self, path: str, sublayer: Sublayer, op: Op) -> bool:
        """Whether an op of the sublayer at ``path`` is meant."""
        names = ((f"{sublayer.name}.{op.output}", "."), (f"{path}/{op.output}", "/"))
        return not self.where or any(
            f"{name}{end}".startswith(f"{self.where}{end}") for name, end in names
        )


def parse_injection(text: str) -> Injection:
    """Parse ``FAULT[@PLACE]``; raises UsageError naming the nearest faults."""
    name, _, where = text.partition("@")
    if name not in FAULTS:
        msg = f"--inject {text}: there is no fault {name}"
        close = get_close_matches(name, FAULTS, 1)
        hint = f"did you mean {close[0]}?" if close else "goldenctl faults lists them"
        raise UsageError(msg, hint=hint)
    if "@" in text and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", where):
        msg = f"--inject {text}: {where!r} is not a place"
        raise UsageError(msg, hint="try @layers.03.attention or @cases/default/steps/01")
    return Injection(FAULTS[name], where)


def inject(
    sublayers: Mapping[str, Sublayer], injections: Sequence[Injection], config: ModelConfig
) -> dict[str, Sublayer]:
    """Return the sublayers with every injection put in.

    Raises UsageError when one hits nothing, or leaves nothing of another: a fault that is
    silently absent proves nothing.
    """
    for injection in injections:
        if injections.count(injection) > 1:
            msg = f"--inject {injection}: is given twice"
            raise UsageError(msg, hint="give it once")
        _refuse_unfit(sublayers, injection, config)
    return {path: _with_faults(path, s, injections, config) for path, s in sublayers.items()}


def _refuse_unfit(
    sublayers: Mapping[str, Sublayer], injection: Injection, config: ModelConfig
) -> None:
    hit = [(s, op) for path, s in sublayers.items() for op in s.ops if injection.hits(path, s, op)]
    if not hit:
        msg = f"--inject {injection}: no sublayer or op that is replayed has that name"
        names = [s.name for s in sublayers.values()]
        raise UsageError(msg, hint=f"such as {names[len(names) // 2]}" if names else "")
    if not any(faulty_op(injection.fault, op, Context(config, s)) for s, op in hit):
        which = "there" if injection.where else "that is replayed"
        msg = f"--inject {injection}: no op {which} can have this fault"
        kinds = " or ".join(injection.fault.kinds)
        raise UsageError(msg, hint=f"only {kinds} can, and not where the model computes so already")


def _with_faults(
    path: str, sublayer: Sublayer, injections: Sequence[Injection], config: ModelConfig
) -> Sublayer:
    context = Context(config, sublayer)
    ops = []
    for op in sublayer.ops:
        mine = injected_into(path, sublayer, op, injections, context)
        changed = combined([injection.fault for injection in mine], op, context) if mine else op
        if changed is None:
            named = " and ".join(f"--inject {injection}" for injection in mine)
            msg = f"{named}: {sublayer.name}.{op.output} cannot have both"
            msg = msg if len(mine) == 2 else msg.removesuffix("both") + "all of them"
            raise UsageError(msg, hint="one undoes or hides another; put them in one by one")
        ops.append(changed)
    return replace(sublayer, ops=tuple(ops))


def injected_into(
    path: str, sublayer: Sublayer, op: Op, injections: Sequence[Injection], context: Context
) -> list[Injection]:
    """Return the injections that are meant for an op and fit it."""
    return [
        injection
        for injection in injections
        if injection.hits(path, sublayer, op) and faulty_op(injection.fault, op, context)
    ]
