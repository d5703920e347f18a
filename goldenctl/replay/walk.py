"""A walk over a sublayer's ops while a replay is bound: what each is given and has yielded."""

from __future__ import annotations

from dataclasses import dataclass, field

from goldenctl.model.graph import Op, Sublayer
from goldenctl.ops.plan import SublayerBuilder, View
from goldenctl.places import FOLDER


@dataclass(frozen=True)
class Walk:
    """One walk over a sublayer's ops: ``isolated`` gives each of them recorded inputs.

    ``given`` are the inputs of each op and ``yielded`` its output, ``loaded`` what comes from
    files, all by name; ``before`` is the walk whose results this one may take over.
    """

    path: str
    sublayer: Sublayer
    builder: SublayerBuilder
    isolated: bool
    loaded: dict[str, View] = field(default_factory=dict)
    given: dict[str, tuple[View, ...]] = field(default_factory=dict)
    yielded: dict[str, View] = field(default_factory=dict)
    before: Walk | None = None

    def composed(self) -> Walk:
        """Return a second walk, in which the ops feed each other."""
        return Walk(self.path, self.sublayer, self.builder, False, loaded=self.loaded, before=self)

    def name(self, tap: str) -> str:
        """What this walk calls a tap, in the plan and below the sublayer's path in the run."""
        return tap if self.before is None else f"{FOLDER}/{tap}"

    def known(self, op: Op, *, replaced: bool) -> View | None:
        """What the walk before yielded, where this one would yield it once more."""
        if self.before is None:
            return None
        same = self.before.given[op.output] == self.given[op.output]
        return self.before.yielded[op.output] if same or replaced else None
