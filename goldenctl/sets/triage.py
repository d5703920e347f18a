"""The triage of a new version against an old one: what became of each tensor.

``same``: the same bytes. ``within``: other bytes, within what rounding may do; the old one is
kept. ``closer``: both are what rounding makes of one truth, and the new one is much nearer to
it. ``changed``: it means something else now, and a person has to look. docs/goldens.md gives
the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from goldenctl.diff.tolerance import default_policy, limits_for
from goldenctl.digests import algorithm_of
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.records.report import Report, TensorResult
from goldenctl.sets.truth import Yardsticks

SAME, WITHIN, CLOSER, CHANGED = "same", "within", "closer", "changed"
WORDS = {
    SAME: "the same bytes",
    WITHIN: "within rounding",
    CLOSER: "closer to the truth",
    CHANGED: "changed meaning",
}
# The new one has at most this part of the old one's distance from the truth.
CLOSER_SHARE = 0.5
# How far a computed table may move, and the truth, in epsilons of their own type.
TABLE_EPSILONS = 4.0
TRUTH_EPSILONS = 4096.0
# A budget may be drawn again (its floors are noise), but not grow or shrink beyond this.
BUDGET_FACTOR = 2.0


@dataclass(frozen=True)
class Change:
    """What became of one tensor: its state, the part of its tolerance used, and why."""

    name: str
    state: str
    share: float = 0.0
    rel_l2: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class Triage:
    """A new version against an old one. ``differs`` names what else is not as it was."""

    old: str
    new: str
    changes: tuple[Change, ...]
    differs: tuple[str, ...]

    def of(self, state: str) -> list[Change]:
        """The tensors of one state, in execution order."""
        return [change for change in self.changes if change.state == state]

    @property
    def summary(self) -> str:
        """How many tensors are in which state: ``60 the same bytes, 3 changed meaning``."""
        counts = ((len(self.of(state)), word) for state, word in WORDS.items())
        return ", ".join(f"{count} {word}" for count, word in counts if count)

    @property
    def ok(self) -> bool:
        """Whether nothing changed its meaning, and something was compared."""
        return bool(self.changes) and not self.of(CHANGED)

    @property
    def identical(self) -> bool:
        return bool(self.changes) and len(self.of(SAME)) == len(self.changes)


class Measure(Protocol):
    """What two recordings are compared by, beside the report on their outputs: the bytes of
    both, or what a manifest keeps of the old one."""

    def distance(self, old: TensorInfo, new: TensorInfo) -> float:
        """The relative L2 error of two tensors of one shape; Inf when it is not known."""

    def truth(self, info: TensorInfo) -> Yardsticks | None:
        """How far both are from their one truth, where that can be told."""

    def budget_factor(self, name: str) -> float | None:
        """By which factor a stored budget changed; None when that is not known."""


def triage(
    old: GoldenFile,
    new: GoldenFile,
    report: Report,
    *,
    labels: tuple[str, str],
    differs: tuple[str, ...] = (),
    measure: Measure,
) -> Triage:
    """Sort every tensor of two recordings; ``report`` judges the outputs in mode ``chain``.

    ``old`` need not be on disk: it may be what a manifest describes.
    """
    sorter = _Sorter(old, new, report, measure)
    names = dict.fromkeys([*old.tensors, *new.tensors])
    changes = tuple(sorter.change(name) for name in names)
    return Triage(*labels, changes=changes, differs=differs)


class _Sorter:
    """Sorts the tensors of two files by what was judged and by what is known of the truth."""

    def __init__(self, old: GoldenFile, new: GoldenFile, report: Report, measure: Measure) -> None:
        self._old = old
        self._new = new
        self._results = {result.name: result for result in report.tensors}
        self._measure = measure

    def change(self, name: str) -> Change:
        old, new = self._old.tensors.get(name), self._new.tensors.get(name)
        if old is None or new is None:
            said = "is new" if old is None else "is not there any more"
            return Change(name, CHANGED, math.inf, math.inf, said)
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            said = _said(old, new)
            return Change(name, CHANGED, math.inf, math.inf, said)
        if old.digest == self._new.digest_in(name, algorithm_of(old.digest)):
            return Change(name, SAME)
        if name in self._results:
            return self._output(name, old)
        if old.role == "budget":
            return self._budget(name)
        return self._given(name, old, new)

    def _output(self, name: str, info: TensorInfo) -> Change:
        result = self._results[name]
        rel_l2 = _rel_l2(result)
        truth = self._measure.truth(info)
        if truth is not None and truth.share <= (CLOSER_SHARE if result.ok else 1.0):
            said = f"{truth.new:.1e} from the truth, was {truth.old:.1e}"
            return Change(name, CLOSER, result.share, rel_l2, said)
        state = WITHIN if result.ok else CHANGED
        message = result.message if result.metrics is not None else _by_sketch(result)
        return Change(name, state, result.share, rel_l2, message)

    def _budget(self, name: str) -> Change:
        """A budget may be drawn again with its tensor, but grants about the same."""
        factor = self._measure.budget_factor(name)
        if factor is None:
            return Change(name, CHANGED, math.inf, math.inf, "cannot be compared")
        ok = factor <= BUDGET_FACTOR
        said = "" if ok else f"its budget changed by a factor of {factor:.2g}"
        return Change(name, WITHIN if ok else CHANGED, factor / BUDGET_FACTOR, factor - 1.0, said)

    def _given(self, name: str, old: TensorInfo, new: TensorInfo) -> Change:
        if not DTYPES[old.dtype].is_float:
            return Change(name, CHANGED, math.inf, math.inf, "the input is another one")
        error = self._measure.distance(old, new)
        share = error / _allowed(old)
        said = "" if math.isfinite(error) else "cannot be compared"
        return Change(name, WITHIN if share <= 1.0 else CHANGED, share, error, said)


def _allowed(info: TensorInfo) -> float:
    """The relative L2 error of what no op of the golden yields: a kept truth, a table, or the
    output of a layer that was not kept, which the whole chain before it made. A truth's sketch
    is not kept, so without its old bytes it counts as changed."""
    eps = DTYPES[info.dtype].eps
    if info.role == "oracle":
        return TRUTH_EPSILONS * eps
    if info.role == "constant":
        return TABLE_EPSILONS * eps
    limits = limits_for(default_policy(), "add", (info.dtype, info.dtype), "chain")
    assert limits.rel_l2 is not None
    return limits.rel_l2


def _said(old: TensorInfo, new: TensorInfo) -> str:
    if old.shape == new.shape:
        return f"{old.dtype} → {new.dtype}"
    return f"{old.dtype} {list(old.shape)} → {new.dtype} {list(new.shape)}"


def _rel_l2(result: TensorResult) -> float:
    if result.metrics is not None:
        return result.metrics.rel_l2
    return next((c.value for c in result.checks if c.metric == "sketch_l2"), math.nan)


def _by_sketch(result: TensorResult) -> str:
    return "the sketch cannot tell" if result.state == "unsure" else "by sketch"
