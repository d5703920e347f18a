"""The experiment that shows whether a backend's outputs depend on their inputs alone.

Every *condition* is an order of the sublayers and a pattern that memory is filled with before;
each pass under it runs in a fresh process. Two passes under one condition tell noise, and only
between conditions that are steady in themselves does a difference say what made it:

- the plain condition twice: they differ, so it is run-to-run noise;
- the same order over another pattern: an uninitialised read;
- another order over the same pattern: state carried on from sublayer to sublayer.

A pass that differs from the plain ones is made once more, so that rare noise is not taken for
a cause. What is written past the end of a buffer is found by the backend's own guards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from goldenctl.places import plain_tap
from goldenctl.records.determinism import Finding

NOISE = "run-to-run noise"
UNINITIALISED = "uninitialised read"
OUT_OF_BOUNDS = "out-of-bounds write"
ORDER = "order dependence"
# The numbers of the patterns that memory is filled with (docs/plan-protocol.md).
POISONS = ("0", "1", "2")

# What one pass yielded, by sublayer and tap: the digest of a tensor. Of a sublayer that failed
# there is only the tap where it did, and how.
Signatures = Mapping[int, Mapping[str, str]]
COMPUTED = "computed"  # stands for a tensor that the run does not keep
_OVERRUN = "failed: overrun"


@dataclass(frozen=True)
class Condition:
    """How a pass runs: the order of the sublayers' indices and the pattern in memory.

    ``kind`` is ``plain``, ``shuffled`` or ``poisoned``.
    """

    kind: str
    order: tuple[int, ...]
    poison: str = POISONS[0]


@dataclass
class Evidence:
    """Every pass made so far, by condition; a condition's passes are repetitions."""

    passes: dict[Condition, list[Signatures]] = field(default_factory=dict)

    def add(self, condition: Condition, signatures: Signatures) -> None:
        self.passes.setdefault(condition, []).append(signatures)

    def count(self, kind: str) -> int:
        """How many passes were made under conditions of a kind."""
        return sum(len(made) for c, made in self.passes.items() if c.kind == kind)

    def seen(self, condition: Condition, sublayer: int, tap: str) -> set[str]:
        """The different signatures of a tensor under one condition."""
        made = self.passes[condition]
        return {signatures[sublayer][tap] for signatures in made if tap in signatures[sublayer]}


def conditions(count: int, *, rounds: int, seed: int, poisons: bool) -> list[Condition]:
    """Return the plain condition, then what it is held against.

    Each round has another order of the ``count`` sublayers and, where the backend ``poisons``,
    another pattern.
    """
    plain = tuple(range(count))
    generator = random.Random(seed)
    made = [Condition("plain", plain)]
    for number in range(rounds):
        order = list(plain)
        while count > 1 and tuple(order) == plain:
            generator.shuffle(order)
        made.append(Condition("shuffled", tuple(order)))
        if poisons:
            made.append(Condition("poisoned", plain, POISONS[1 + number % (len(POISONS) - 1)]))
    return made


def experiment(made: Sequence[Condition], run_pass: Callable[[Condition], Signatures]) -> Evidence:
    """Make every pass that is needed; the last one is plain."""
    plain, *others = made
    evidence = Evidence()
    evidence.add(plain, run_pass(plain))
    for number, condition in enumerate(others):
        if number and condition.kind == "shuffled":
            evidence.add(plain, run_pass(plain))
        evidence.add(condition, run_pass(condition))
    for condition in dict.fromkeys(others):
        if evidence.passes[condition][0] != evidence.passes[plain][0]:
            evidence.add(condition, run_pass(condition))
    evidence.add(plain, run_pass(plain))
    return evidence


def findings(evidence: Evidence, *, isolated_ops: bool) -> list[tuple[int, Finding]]:
    """Say of every sublayer, by its index, that is not deterministic where and how it is not.

    Without ``isolated_ops`` later taps of a sublayer inherit what the first one shows, so only
    that is named.
    """
    plain = next(condition for condition in evidence.passes if condition.kind == "plain")
    passes = [signatures for made in evidence.passes.values() for signatures in made]
    found = []
    for sublayer in sorted(passes[0]):
        longest = max((p[sublayer] for p in passes), key=len)
        taps = dict.fromkeys([*longest, *(tap for p in passes for tap in p[sublayer])])
        named = [f for tap in taps if (f := _finding(evidence, plain, sublayer, tap)) is not None]
        apart = [finding for finding in named if finding.tap == plain_tap(finding.tap)]
        found += [(sublayer, finding) for finding in (isolated_ops and apart) or named[:1]]
    return found


def _finding(evidence: Evidence, plain: Condition, sublayer: int, tap: str) -> Finding | None:
    seen = {c: evidence.seen(c, sublayer, tap) for c in evidence.passes}
    everything = set().union(*seen.values())
    overruns = [signature for signature in everything if signature.startswith(_OVERRUN)]
    if overruns:
        return Finding("", tap, (OUT_OF_BOUNDS,), min(overruns).partition(", ")[2])
    if any(len(signatures) > 1 for signatures in seen.values()):
        return Finding("", tap, (NOISE,), f"{len(everything)} results of one input")
    differing = [c for c in seen if seen[c] and seen[plain] and seen[c] != seen[plain]]
    kinds = {condition.kind for condition in differing}
    names = {"poisoned": UNINITIALISED, "shuffled": ORDER}
    classes = tuple(name for kind, name in names.items() if kind in kinds)
    return Finding("", tap, classes, _how(differing, sublayer)) if classes else None


def _how(differing: Sequence[Condition], sublayer: int) -> str:
    """Say under which condition the result was another."""
    condition = differing[0]
    if condition.kind == "poisoned":
        return f"another result where memory held pattern {condition.poison} before"
    return f"another result at place {condition.order.index(sublayer)} of another order"


def failure_signature(failure: Mapping[str, Any]) -> str:
    """What stands for a sublayer's tensors in a pass in which it failed."""
    where = f" at {failure['tap']}" if "tap" in failure else ""
    return f"failed: {failure.get('reason')}{where}, {failure.get('message')}"
