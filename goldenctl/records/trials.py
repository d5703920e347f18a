"""What a selftest found, as part of a report, and the rates that it must reach."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

VISIBLE = 8.0
"""A fault is visible when it moves some row by this many times what rounding does."""
LEAST_CAUGHT = 0.998
LEAST_LOCATED = 0.98
LEAST_NAMED = 0.95


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault at one op: whether the input shows it at all, and what was said of it.

    ``effect`` is the largest row of ||f - e|| over B, the row's rounding; ``named`` whether
    the fault is among those that the diagnosis gave, ``causes`` all of them. ``held_out`` are
    the causes that a catalogue without this fault gave: each would be a wrong name; None
    where that was not tried. ``gates`` says of each gate of the field whether it caught it.
    """

    fault: str
    place: str
    op: str
    effect: float
    caught: bool
    named: bool
    causes: tuple[str, ...] = ()
    held_out: tuple[str, ...] | None = None
    gates: dict[str, bool] = {}

    @property
    def visible(self) -> bool:
        return not self.effect < VISIBLE


class Verdict(msgspec.Struct, frozen=True):
    """Something tried at a place, and whether the answer was right."""

    what: str
    place: str
    ok: bool


class Selftest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All trials; every verdict on something correct (``what`` is the engine or alternative);
    and every fault put into a whole sublayer (ok: its op was the first culprit)."""

    dtype: str
    trials: list[Trial] = []
    correct: list[Verdict] = []
    located: list[Verdict] = []
    correct_ops: int = 0
    correct_gates: dict[str, int] = {}

    @property
    def visible(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.visible]

    @property
    def hidden(self) -> int:
        """Faults that this input does not show."""
        return len(self.trials) - len(self.visible)

    def rate(self, good: Callable[[Trial], bool]) -> float:
        """The share of visible trials that are good; NaN without any."""
        trials = self.visible
        return sum(map(good, trials)) / len(trials) if trials else float("nan")

    @property
    def wrong_names(self) -> list[Trial]:
        """Held-out faults that were given another name, though the two can be told apart."""
        return [t for t in self.visible if set(t.held_out or ()) - set(t.causes)]

    @property
    def false_alarms(self) -> list[Verdict]:
        return [verdict for verdict in self.correct if not verdict.ok]

    @property
    def ok(self) -> bool:
        """Every rate is reached, nothing correct was called wrong, no bug misnamed."""
        return (
            bool(self.visible)
            and bool(self.located)
            and self.rate(lambda t: t.caught) >= LEAST_CAUGHT
            and sum(v.ok for v in self.located) / len(self.located) >= LEAST_LOCATED
            and self.rate(lambda t: t.named) >= LEAST_NAMED
            and not self.false_alarms
            and not self.wrong_names
        )

    def rates(self) -> list[tuple[str, int, int, str]]:
        """What is counted: (label, good, total, what it must be)."""
        visible = self.visible
        tried = sum(t.held_out is not None for t in visible)
        return [
            ("faults caught", sum(t.caught for t in visible), len(visible), _least(LEAST_CAUGHT)),
            ("culprit op right", sum(v.ok for v in self.located), len(self.located),
             _least(LEAST_LOCATED)),
            ("bug named right", sum(t.named for t in visible), len(visible), _least(LEAST_NAMED)),
            ("false alarms", len(self.false_alarms), len(self.correct), "none"),
            ("wrong names", len(self.wrong_names), tried, "none"),
        ]  # fmt: skip

    def by_op(self) -> list[tuple[str, int, int, int]]:
        """Visible faults by the op that they were put into: (op, faults, caught, named)."""
        found = []
        for op in dict.fromkeys(t.op for t in self.visible):
            mine = [t for t in self.visible if t.op == op]
            found.append((op, len(mine), sum(t.caught for t in mine), sum(t.named for t in mine)))
        return found

    def by_fault(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """(fault, op, trials, visible, caught, named, not shown but caught)."""
        found = []
        for fault, op in sorted({(t.fault, t.op) for t in self.trials}):
            mine = [t for t in self.trials if (t.fault, t.op) == (fault, op)]
            seen = [t for t in mine if t.visible]
            caught, named = sum(t.caught for t in seen), sum(t.named for t in seen)
            unseen = sum(t.caught for t in mine if not t.visible)
            found.append((fault, op, len(mine), len(seen), caught, named, unseen))
        return found

    def by_gate(self) -> list[tuple[str, float, int, int]]:
        """This tool's verdict and the gates of the field: (gate, share caught, false alarms,
        of so many)."""
        found = [
            (
                "goldenctl, by budget",
                self.rate(lambda t: t.caught),
                len(self.false_alarms),
                len(self.correct),
            )
        ]
        for gate in self.visible[0].gates if self.visible else ():
            caught = sum(t.gates.get(gate, False) for t in self.visible) / len(self.visible)
            found.append((gate, caught, self.correct_gates.get(gate, 0), self.correct_ops))
        return found

    def complaints(self) -> list[str]:
        """What went wrong, one line each."""
        lines = [f"escaped: {t.fault} at {t.place}" for t in self.visible if not t.caught]
        lines += [f"not the culprit: {v.what} at {v.place}" for v in self.located if not v.ok]
        lines += [f"false alarm: {v.what} at {v.place}" for v in self.false_alarms]
        lines += [
            f"not named: {t.fault} at {t.place}, got {', '.join(t.causes) or 'nothing'}"
            for t in self.visible
            if t.caught and not t.named
        ]
        lines += [
            f"wrong name: {t.fault} at {t.place}, without it in the catalogue: "
            f"{', '.join(t.held_out or ())}"
            for t in self.wrong_names
        ]
        return lines


def _least(share: float) -> str:
    return f"at least {100 * share:.4g}%"
