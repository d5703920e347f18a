"""The verdict on one tensor of a run by its bytes, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.choices import OTHERS, OtherChoices
from goldenctl.diff.finite import NO_REFERENCE, compared
from goldenctl.diff.further import Further, Sides, further_checks
from goldenctl.diff.metrics import score, score_logits
from goldenctl.diff.padding import Padding, padding_of
from goldenctl.diff.results import result_of
from goldenctl.diff.rope_tables import exact_tables
from goldenctl.diff.scopes import Stored, is_fused, recorded_scores, stored_budget
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.tolerance import Policy, Scores, check_limits, limits_for
from goldenctl.diff.traced import computed_rows
from goldenctl.diff.whole_numbers import whole_numbers
from goldenctl.diff.whole_run import Spread, spread_of
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.golden.calls import is_of_modules
from goldenctl.golden.composed import scope_of
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES, BUDGET_STATISTICS, TensorInfo, budget_path
from goldenctl.places import is_composed
from goldenctl.records.metrics import Metrics
from goldenctl.records.policy import Check, verdict
from goldenctl.records.report import NOT_JUDGED, PASSED, TensorResult
from goldenctl.records.structure import Trace


class ByBytes:
    """Judges two tensors of one shape by their bytes: by the budget where there is one, else by
    the policy.

    ``traces`` are what traced engines say of their runs. ``spreads`` gathers, by tensor, what
    the whole run is judged by.
    """

    def __init__(
        self,
        golden: GoldenFile,
        run: GoldenFile,
        policy: Policy,
        *,
        mode: str,
        traces: Sequence[Trace],
        strict: bool,
    ) -> None:
        self._golden = golden
        self._run = run
        self._policy = policy
        self._mode = mode
        self._traces = traces
        self._strict = strict
        self._scores: dict[str, Scores] = {}  # by sublayer, once they are judged
        self.spreads: dict[str, Spread] = {}
        self._others = OtherChoices(golden, run, mode)

    def __call__(self, info: TensorInfo, actual: TensorInfo) -> TensorResult:
        if not DTYPES[info.dtype].is_float:
            return whole_numbers(self._golden, self._run, info, actual, mode=self._mode)
        hidden = padding = padding_of(self._golden, info)
        for trace in self._traces:
            padding = computed_rows(trace, info, padding)
        whole = self._run.verify(actual.name), self._golden.verify(info.name)
        computed, followed = padding, self._others.followed(info, actual)
        if followed is not None:
            padding = padding.only(~followed)
            if padding.rows is not None and not padding.rows.any():
                others = padding.count - computed.count
                return result_of(info, NOT_JUDGED, actual, message=OTHERS, other_choice_rows=others)
        if choices := self._others.of(info, actual):
            renormalise = self._golden.config.norm_topk_prob
            whole = (whole[0], choices.expected_of(renormalise=renormalise))
        sound = partial(self._sound, info)
        pair = compared(*whole, padding, rtol=_rtol(info, actual), op=info.op, sound=sound)
        metrics = pair.metrics
        left_out = {
            "padding_rows": hidden.count,
            "absent_rows": computed.count - hidden.count,
            "other_choice_rows": padding.count - computed.count,
            "not_judged_rows": pair.not_judged,
            "only_reference_rows": pair.only_reference,
        }
        if pair.unjudged:
            said = {"message": NO_REFERENCE, "metrics": metrics}
            return result_of(info, NOT_JUDGED, actual, **said, **left_out)
        rule, checks, worst_row = self._checks(info, actual, metrics, pair.rows, pair.counted)
        if info.op == "matmul_qk":
            folder = info.place.group
            self._scores[folder] = Scores(metrics.max_expected, info.shape[-1])
        sides = Sides(self._golden, self._run, info, actual)
        scope = scope_of(self._mode, actual.name)
        further = Further()
        if self._policy.budget:  # another tolerance is what its author wrote
            further = further_checks(sides, pair.rows, pair.counted, scope=scope)
        checks += further.checks
        stored = self._stored(info, actual) if rule == "budget" else None
        finite = pair.finite
        found = verdict(checks, finite=finite)
        noted = further.note if self._strict else ""
        ok = found.ok and not noted
        is_logits = info.sublayer == "lm_head"
        return result_of(
            info,
            PASSED if ok else "failed",
            actual,
            rule=rule,
            share=found.share,
            checks=tuple(checks),
            metrics=metrics,
            logits=score_logits(pair.actual, pair.expected) if is_logits else None,
            worst=_place(info, metrics, worst_row, pair.counted if finite else padding),
            message=(further.message or noted or self._said(info, actual, stored, ok=ok))
            if finite
            else _non_finite(metrics),
            note=further.note if finite else "",
            **left_out,
        )

    def _said(
        self, info: TensorInfo, actual: TensorInfo, stored: Stored | None, *, ok: bool
    ) -> str:
        """What is to be said of a tensor whose masks are right."""
        if not ok and info.op == "rope" and not is_composed(actual.name):
            scope = scope_of(self._mode, actual.name)
            return exact_tables(self._golden, self._run, info, self._run.map(actual.name), scope)
        return stored.note if stored is not None else ""

    def _checks(
        self,
        info: TensorInfo,
        actual: TensorInfo,
        metrics: Metrics,
        rows: RowErrors | None,
        padding: Padding,
    ) -> tuple[str, list[Check], int | None]:
        """Return the rule's name, its checks, and the worst row where rows were judged."""
        folder, tap = info.place.group, info.tap
        stored = self._stored(info, actual)
        if self._policy.budget and stored is not None and rows is not None:
            shape = (stored.scopes, *info.shape[:-1], len(BUDGET_STATISTICS))
            recorded = self._beside(stored.name, shape)
            budget = Budget.of(recorded, stored.scope, padding.rows, dtype=actual.dtype)
            apart = scope_of(self._mode, actual.name) == "op" or is_of_modules(self._golden.recipe)
            if not apart and actual.dtype == info.dtype:
                self._note_spread(actual, rows, budget)
            truth = f"{folder}/oracle/{tap}"
            kept = stored.truth and truth in self._golden.tensors
            if not kept or actual.dtype != info.dtype:
                return "budget", *check_budget(rows, budget, from_truth=False)
            truths = self._beside(truth, (len(BUDGET_SCOPES), *info.shape))
            exact = padding.without(truths[stored.scope])
            got = padding.without(self._run.map(actual.name))
            from_truth = RowErrors.of(exact)
            score(got, exact, atol=0.0, rtol=0.0, rows=from_truth)
            return "truth", *check_budget(from_truth, budget, from_truth=True)
        fused = is_fused(self._run, info)
        scope = scope_of(self._mode, actual.name)
        limits = limits_for(
            self._policy,
            info.op,
            (info.dtype, actual.dtype),
            "sublayer" if fused and scope == "op" else scope,
            shape=info.shape,
            scores=recorded_scores(self._golden, folder) if fused else self._scores.get(folder),
        )
        return self._policy.name, list(check_limits(metrics, limits)), None

    def _note_spread(self, actual: TensorInfo, rows: RowErrors, budget: Budget) -> None:
        spread = spread_of(rows, budget, dtype=actual.dtype)
        if spread is not None:
            self.spreads[actual.name] = spread

    def _stored(self, info: TensorInfo, actual: TensorInfo) -> Stored | None:
        fused, scope = is_fused(self._run, info), scope_of(self._mode, actual.name)
        return stored_budget(self._golden, info, actual.dtype, scope=scope, fused=fused)

    def _sound(self, info: TensorInfo) -> NDArray[np.bool_] | None:
        """Which rows have a finite truth, wherever it starts: rounding does something finite
        to it. None without a budget."""
        name = budget_path(info.name, recorded=info.dtype, actual=info.dtype)
        if name not in self._golden.tensors:
            return None
        shape = (len(BUDGET_SCOPES), *info.shape[:-1], len(BUDGET_STATISTICS))
        stored = self._beside(name, shape)
        budgets = [Budget.of(stored, scope) for scope in range(len(BUDGET_SCOPES))]
        sound: NDArray[np.bool_] = np.any([np.isfinite(b.floor_l2) for b in budgets], axis=0)
        return sound

    def _beside(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a budget or a truth of the golden; DamagedError when it does not fit."""
        info = self._golden.info(name)
        if info.shape != shape or not DTYPES[info.dtype].is_float:
            expected = f"expected floats {list(shape)}, got {info.dtype} {list(info.shape)}"
            message = f"{self._golden.path}: {name}: {expected}"
            raise DamagedError(message, hint="record it again with --oracle")
        return self._golden.verify(name)


def _rtol(info: TensorInfo, actual: TensorInfo) -> float:
    """Elements further off than four epsilons of the coarser type count as outside."""
    return 4 * max(DTYPES[info.dtype].eps, DTYPES[actual.dtype].eps)


def _place(info: TensorInfo, metrics: Metrics, worst_row: int | None, padding: Padding) -> str:
    """Name the worst element, or the worst row, by its indices: ``token 3, head 2``."""
    index = metrics.first_mismatch
    if index is None:
        index = metrics.worst_index
    if index is None:
        return ""
    if worst_row is not None and metrics.mismatches == 0:
        shape, dims, index = info.shape[:-1], info.dims[:-1], padding.row_index(worst_row)
    else:
        shape, dims = info.shape, info.dims
        row, column = divmod(index, shape[-1]) if shape else (0, 0)
        index = padding.row_index(row) * shape[-1] + column if shape else 0
    where = np.unravel_index(index, shape) if shape else ()
    return ", ".join(f"{dim} {int(i)}" for dim, i in zip(dims, where, strict=True))


def _non_finite(metrics: Metrics) -> str:
    return (
        f"{metrics.nan_actual} NaN and {metrics.inf_actual} Inf, expected "
        f"{metrics.nan_expected} and {metrics.inf_expected}"
    )
