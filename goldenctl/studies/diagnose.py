"""The diagnosis of a wrong op: which fault, applied to the reference on the recorded
inputs, yields what the backend wrote.

A cause is named only when it was reproduced: with the fault, the reference comes as near
to the backend's output as correct rounding comes to the golden, and that explains nine tenths of
the error. What comes nearest of the rest is said to be that, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, row_limits
from goldenctl.diff.finite import finite_rows
from goldenctl.diff.metrics import score
from goldenctl.diff.padding import padding_of
from goldenctl.diff.signature import describe_error
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.tolerance import default_policy
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES
from goldenctl.model.graph import CACHE_LINKS, Op, Sublayer
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, Fault, together
from goldenctl.records.findings import EXPLAINS, Cause, explanation
from goldenctl.reference.patch import Emulator

Values = NDArray[np.generic]
_PAIR_EXPLAINS = 0.5  # a fault that explains this much may be one of two
_NEAREST_EXPLAINS = 0.25  # a fault that explains less is not worth a word
# Residuals within this factor of the best, or of rounding, cannot be told apart; one that is
# further from rounding is another bug.
_TIED = 3.0


@dataclass(frozen=True)
class Hypothesis:
    """One or two faults, and what of the error is left when they are assumed.

    ``explained`` is 1 - ||a - f||² / ||a - e||²; ``reproduced`` tells whether the rest is
    within rounding.
    """

    faults: tuple[Fault, ...]
    explained: float
    residual: float
    reproduced: bool

    @property
    def title(self) -> str:
        return " and ".join(fault.title for fault in self.faults)

    @property
    def cause(self) -> Cause:
        """What a report keeps of it."""
        names = tuple(fault.name for fault in self.faults)
        return Cause(
            title=self.title, faults=names, explained=self.explained, residual=self.residual
        )


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one culprit: the faults that reproduce it (more than one when this
    input cannot tell them apart), and where none does what comes ``nearest`` and what the error
    looks like. ``skipped`` are hypotheses that could not be computed, and why."""

    name: str
    causes: tuple[Hypothesis, ...]
    looks_like: tuple[str, ...]
    nearest: Hypothesis | None = None
    skipped: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        causes = [hypothesis.cause for hypothesis in self.causes]
        nearest = self.nearest.cause if self.nearest is not None else None
        return explanation(causes, nearest, self.looks_like)


class Diagnoser:
    """Tests the catalogue of faults on culprits of one golden, in replay mode ``op``."""

    def __init__(
        self, golden: GoldenFile, emulator: Emulator, *, faults: Sequence[Fault] | None = None
    ) -> None:
        self._golden = golden
        self._emulator = emulator
        self._faults = tuple(FAULTS.values()) if faults is None else tuple(faults)

    def diagnose(self, path: str, sublayer: Sublayer, tap: str, actual: Values) -> Diagnosis:
        """Explain ``actual``, the backend's output of the op that yields ``tap``."""
        op = sublayer.producer(CACHE_LINKS.get(tap, tap))
        case = _Case(self, path, sublayer, op, tap, actual)
        causes = tuple(case.reproduced())
        info = self._golden.info(f"{path}/{tap}")
        looks = () if causes else tuple(case.looks_like(info.dims, info.dtype))
        nearest = None if causes else case.nearest()
        return Diagnosis(f"{path}/{tap}", causes, looks, nearest, tuple(case.skipped))

    @property
    def golden(self) -> GoldenFile:
        return self._golden

    @property
    def emulator(self) -> Emulator:
        return self._emulator

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._faults


class _Case:
    """One culprit under diagnosis."""

    def __init__(
        self,
        owner: Diagnoser,
        path: str,
        sublayer: Sublayer,
        op: Op,
        tap: str,
        actual: Values,
    ) -> None:
        self._owner = owner
        self._path, self._sublayer, self._op = path, sublayer, op
        self._context = Context(owner.emulator.config, sublayer)
        self._name = f"{path}/{tap}"
        self._shown = owner.golden.map(self._name)
        padded = padding_of(owner.golden, owner.golden.info(self._name))
        self._padding = finite_rows(self._shown, padded)
        self._shown_actual = padded.equalised(actual, self._shown)
        self._actual = self._padding.without(actual)
        self._expected = self._padding.without(self._shown)
        stored = f"{path}/budget/{tap}"
        self._budget = None
        if stored in owner.golden.tensors:
            self._budget = Budget.of(
                owner.golden.map(stored), BUDGET_SCOPES.index("op"), self._padding.rows
            )
        self._rounding = self._relative_rounding()
        self._tested: list[Hypothesis] = []
        self.skipped: list[str] = []

    def reproduced(self) -> Iterator[Hypothesis]:
        """Yield the faults that reproduce the output, best first, all that tie with it; none
        where it differs only in rows of which the reference is not finite."""
        before = score(self._actual, self._expected, atol=0.0, rtol=0.0)
        if not before.mismatches and not before.max_abs_error:
            return
        singles = [h for fault in self._owner.faults if (h := self._test((fault,)))]
        found = [h for h in singles if h.reproduced] or list(self._pairs(singles))
        found.sort(key=lambda h: h.residual)
        for hypothesis in found:
            if hypothesis.residual <= _TIED * max(found[0].residual, self._rounding):
                yield hypothesis

    def nearest(self) -> Hypothesis | None:
        """Return what explains most of the error, of all that was tested."""
        best = max(self._tested, key=lambda h: h.explained, default=None)
        return best if best is not None and best.explained >= _NEAREST_EXPLAINS else None

    def looks_like(self, dims: tuple[str, ...], dtype: str) -> list[str]:
        return describe_error(self._shown_actual, self._shown, dims, dtype)

    def _pairs(self, singles: list[Hypothesis]) -> Iterator[Hypothesis]:
        if not any(h.explained >= _PAIR_EXPLAINS for h in singles):
            return
        for first, second in combinations(singles, 2):
            if max(first.explained, second.explained) < _PAIR_EXPLAINS:
                continue
            hypothesis = self._test((*first.faults, *second.faults))
            if hypothesis is not None and hypothesis.reproduced:
                yield hypothesis

    def _test(self, faults: tuple[Fault, ...]) -> Hypothesis | None:
        """Apply faults, in whichever order they go together, to the reference; None where they
        do not fit this op or each other, or the result cannot be computed."""
        op = together(faults, self._op, self._context)
        if op is None:
            return None
        try:
            faulty = self._owner.emulator.output(self._path, self._sublayer, op)
            faulty = self._padding.without(faulty.reshape(self._shown.shape))
        except Exception as error:  # one guess that fails must not cost the others
            named = " and ".join(fault.name for fault in faults)
            said = str(error).partition("\n")[0]
            self.skipped.append(f"{named}: {type(error).__name__}: {said}")
            return None
        hypothesis = self._weigh(faults, faulty)
        self._tested.append(hypothesis)
        return hypothesis

    def _weigh(self, faults: tuple[Fault, ...], faulty: Values) -> Hypothesis:
        rows = RowErrors.of(faulty)
        metrics = score(self._actual, faulty, atol=0.0, rtol=0.0, rows=rows)
        before = score(self._actual, self._expected, atol=0.0, rtol=0.0)
        residual = metrics.rel_l2 if np.isfinite(metrics.rel_l2) else np.inf
        error = before.mse * before.compared
        left = metrics.mse * metrics.compared
        same_masks = metrics.mismatches == 0
        if same_masks and not metrics.compared:  # NaN and Inf alone, in the same places
            residual = 0.0
        explained = 1.0 - left / error if error > 0 else float(same_masks)
        reproduced = same_masks and explained >= EXPLAINS and self._within(rows, residual)
        return Hypothesis(faults, explained, float(residual), reproduced)

    def _within(self, rows: RowErrors, residual: float) -> bool:
        """Whether what is left is rounding: by the budget, scaled to the faulty result."""
        if not residual <= _TIED * self._rounding:
            return False
        if self._budget is None:
            return True
        l2_limit, _ = row_limits(self._budget, self._row_norms(), from_truth=False)
        expected = np.maximum(self._row_norms(), 1e-300)
        grown = np.maximum(1.0, np.sqrt(rows.expected_squared) / expected)
        return bool(np.all(np.sqrt(rows.error_squared) <= l2_limit * grown))

    def _relative_rounding(self) -> float:
        """What rounding does to the whole tensor, as a relative L2."""
        if self._budget is None:
            dtype = self._expected.dtype.name
            limits = default_policy().limits(dtype, self._op.kind)
            return (limits.rel_l2 or DTYPES[dtype].eps) / _TIED
        typical = np.maximum(self._budget.l2, self._budget.floor_l2)
        norm = float(np.linalg.norm(self._row_norms()))
        return float(np.linalg.norm(typical)) / norm if norm else 0.0

    def _row_norms(self) -> NDArray[np.float64]:
        rows = RowErrors.of(self._expected)
        score(self._expected, self._expected, atol=0.0, rtol=0.0, rows=rows)
        return np.sqrt(rows.expected_squared)
