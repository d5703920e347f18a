"""What a fault is: a named change of one op, and how several go together.

A fault is a transform of the graph, so it can be injected on any backend and applied to the
reference to test whether it explains a wrong output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer, own_name

# Turns an op into the faulty one, or None where the fault makes no sense.
Change = Callable[[Op, "Context"], Op | None]


@dataclass(frozen=True)
class Context:
    """Where an op stands: its model, its sublayer, and the names of the weights there are."""

    config: ModelConfig
    sublayer: Sublayer

    @property
    def has_past(self) -> bool:
        """Whether attention reads a cache that earlier steps filled."""
        return any(own_name(name) != name for op in self.sublayer.ops for name in op.inputs)


@dataclass(frozen=True)
class Fault:
    """One named mistake: ``kinds`` are the op kinds it can befall, ``change`` what it does."""

    name: str
    title: str
    kinds: tuple[str, ...]
    change: Change


def faulty_op(fault: Fault, op: Op, context: Context) -> Op | None:
    """Return the op with the fault, or None where it does not fit or changes nothing."""
    return combined([fault], op, context)


def combined(faults: Sequence[Fault], op: Op, context: Context) -> Op | None:
    """Return the op with all of the faults, put in one after the other.

    None where one does not fit, or where the op is no other than without it: two emulations
    of one op, two thetas, a shift there and back.
    """
    changed = _changed(faults, op, context)
    left_out = (_changed([*faults[:i], *faults[i + 1 :]], op, context) for i in range(len(faults)))
    return None if changed == op or changed in left_out else changed


def together(faults: Sequence[Fault], op: Op, context: Context) -> Op | None:
    """Return the op with all of the faults, in the order given or the other way round; None
    where they go together in neither."""
    orders = (combined(order, op, context) for order in (faults, faults[::-1]))
    return next((op for op in orders if op is not None), None)


def _changed(faults: Sequence[Fault], op: Op, context: Context) -> Op | None:
    changed: Op | None = op
    for fault in faults:
        if changed is None or changed.kind not in fault.kinds:
            return None
        changed = fault.change(changed, context)
    return changed
