"""Owns the comparison of a run with its golden: pair, score, judge, in execution order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.finite import NO_REFERENCE, compared
from goldenctl.diff.further import Further, Sides, further_checks
from goldenctl.diff.metrics import score, score_logits
from goldenctl.diff.padding import Padding, padding_of
from goldenctl.diff.pair import check_pair
from goldenctl.diff.results import result_of
from goldenctl.diff.rope_tables import exact_tables
from goldenctl.diff.scopes import (
    Stored,
    budget_mode,
    is_fused,
    recorded_scores,
    stored_budget,
)
from goldenctl.diff.step_times import step_times
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.tolerance import Policy, Scores, check_limits, limits_for
from goldenctl.diff.traced import computed_rows, for_report, trace_of, with_local
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.golden.composed import BOTH, leaving, scope_of
from goldenctl.golden.composed import ROLE as COMPOSED
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES, BUDGET_STATISTICS, TensorInfo, budget_path
from goldenctl.places import composed_name, is_composed, owner, short_name, tap_of
from goldenctl.records.determinism import Determinism
from goldenctl.records.metrics import Metrics
from goldenctl.records.policy import Check
from goldenctl.records.report import (
    NOT_JUDGED,
    PASSED,
    Provenance,
    Report,
    SublayerResult,
    TensorResult,
    first_wrong,
    worst_share,
)

Progress = Callable[[int, int, str], None]
# Judges two tensors of one shape: expected, actual.
Scorer = Callable[[TensorInfo, TensorInfo], TensorResult]
_INPUT_ROLES = ("constant", "input")
_COMPARED_ROLES = ("tap", "output")


def compare(
    golden: GoldenFile,
    run: GoldenFile,
    policy: Policy,
    *,
    mode: str | None = None,
    scorer: Scorer | None = None,
    strict: bool = False,
    progress: Progress = lambda *_: None,
) -> Report:
    """Score and judge every tensor that the run should hold.

    ``mode`` is by default the one that the run was replayed in, ``chain`` for a second golden:
    it was computed from the token ids. ``scorer`` judges two tensors of one shape in place of
    their bytes, such as by their sketches. ``strict`` fails what is only noted otherwise.

    Raises DamagedError when the run belongs to another golden or its bytes do not match
    their digests, UsageError when the files are not a pair of this kind.
    """
    check_pair(golden, run)
    mode = mode or str(run.recipe.get("mode", "chain" if run.kind == "golden" else "sublayer"))
    judge = _Judge(golden, run, policy, mode=budget_mode(mode), scorer=scorer, strict=strict)
    names = _replayed(golden, run)
    ran = set(names)
    if scorer is None:
        _verify_inputs(golden, names)
    sublayers = []
    for number, name in enumerate(names):
        sublayers.append(judge.sublayer(name))
        progress(number + 1, len(names), short_name(name))
    expected = {t.name for s in sublayers for t in s.tensors}
    extra = [_extra(info) for info in _outputs(run, mode) if info.name not in expected]
    return Report(
        golden=provenance(golden),
        run=provenance(run),
        policy=policy.name,
        mode=mode,
        sublayers=tuple(sublayers),
        extra=tuple(extra),
        simulated=run.simulated or golden.simulated,
        faults=tuple(str(f) for side in (golden, run) for f in side.recipe.get("faults", ())),
        steps=step_times(sublayers, golden.decode_steps),
        left_out=len(golden.sublayers) - len(names),
        not_run=tuple(name for name in golden.sublayers if name not in ran),
        determinism=_determinism(run),
        trace=for_report(judge.trace),
    )


def _determinism(run: GoldenFile) -> Determinism | None:
    found = run.recipe.get("determinism")
    return None if found is None else msgspec.convert(found, Determinism)


class _Judge:
    """Judges one run's tensors by the budget where there is one, else by the policy."""

    def __init__(
        self,
        golden: GoldenFile,
        run: GoldenFile,
        policy: Policy,
        *,
        mode: str,
        scorer: Scorer | None,
        strict: bool = False,
    ) -> None:
        self._golden = golden
        self._run = run
        self._policy = policy
        self._mode = mode
        self._strict = strict
        self._score = scorer or self._scored
        sides = (golden, run)
        self.trace = trace_of(run)
        self._traces = [trace for trace in map(trace_of, sides) if trace is not None]
        self._not_computed = {tap for side in sides for tap in side.recipe.get("not_computed", ())}
        self._dtype = _stated_dtype(run)
        self._scores: dict[str, Scores] = {}  # by sublayer, once they are judged
        self._by_sublayer: dict[str, list[TensorInfo]] = {}
        for info in _outputs(golden, mode):
            self._by_sublayer.setdefault(owner(info.name), []).append(info)

    def sublayer(self, name: str) -> SublayerResult:
        failure = None
        ran = self._run.sublayers.get(name)
        for side in (self._golden.sublayers[name], ran):
            if side is not None and side.status != "ok":
                failure = side.failure or {}
        tensors = tuple(with_local(t, self.trace) for t in self._tensors(name, failure))
        wrong = first_wrong(tensors, failure)
        return SublayerResult(
            name=name,
            state="crashed" if failure is not None else "failed" if wrong else PASSED,
            first_wrong=wrong.tap if wrong else "",
            share=worst_share(list(tensors)),
            input_shape=self._input_shape(name),
            tensors=tensors,
            expected_ns=self._golden.sublayers[name].time_ns,
            actual_ns=ran.time_ns if ran is not None else 0,
            expected_iqr_ns=self._golden.sublayers[name].iqr_ns,
            actual_iqr_ns=ran.iqr_ns if ran is not None else 0,
            failure=failure,
        )

    def _input_shape(self, sublayer: str) -> tuple[int, ...] | None:
        path = f"{sublayer}/input"
        info = self._golden.tensors.get(self._golden.aliases.get(path, path))
        return None if info is None else info.shape

    def _tensors(self, name: str, failure: dict[str, Any] | None) -> Iterator[TensorResult]:
        infos = self._by_sublayer.get(name, [])
        for info in infos:
            yield self._tensor(info, info.name, failure)
        if self._mode == BOTH and not any(is_composed(info.name) for info in infos):
            for info in leaving(infos):
                yield self._tensor(info, composed_name(info.name), failure)

    def _tensor(self, info: TensorInfo, name: str, failure: dict[str, Any] | None) -> TensorResult:
        """Judge the run's tensor ``name`` by the golden's ``info``."""
        result = self._compared(info, self._run.tensors.get(name), failure)
        if not is_composed(name):
            return result
        return msgspec.structs.replace(result, name=name, sublayer=owner(name), tap=tap_of(name))

    def _compared(
        self, info: TensorInfo, actual: TensorInfo | None, failure: dict[str, Any] | None
    ) -> TensorResult:
        if info.tap in self._not_computed and failure is None:
            return result_of(info, "not_computed", message="the backend fuses this op away")
        if info.name in self._not_computed:
            said = (
                "a fused op does not yield it"
                if self._traces
                else "the engine's dump does not have it"
            )
            return result_of(info, "not_computed", message=said)
        if failure is not None:
            where = f" at {failure['tap']}" if "tap" in failure else ""
            said = f"{failure.get('reason')}{where}: {failure.get('message')}"
            return result_of(info, "crashed", message=said, share=float("inf"))
        if actual is None:
            return result_of(info, "missing", message="not in the run", share=float("inf"))
        if actual.shape != info.shape:
            said = (
                f"expected shape {list(info.shape)}, got {list(actual.shape)}: "
                "the two architectures differ"
            )
            return result_of(info, "shape_mismatch", actual, message=said, share=float("inf"))
        floats = DTYPES[actual.dtype].is_float and DTYPES[info.dtype].is_float
        if not floats or self._dtype not in ("", actual.dtype):
            said = f"expected dtype {self._dtype if floats else info.dtype}, got {actual.dtype}"
            return result_of(info, "dtype_mismatch", actual, message=said, share=float("inf"))
        return self._score(info, actual)

    def _scored(self, info: TensorInfo, actual: TensorInfo) -> TensorResult:
        hidden = padding = padding_of(self._golden, info)
        for trace in self._traces:
            padding = computed_rows(trace, info, padding)
        whole = self._run.verify(actual.name), self._golden.verify(info.name)
        sound = partial(self._sound, info)
        pair = compared(*whole, padding, rtol=_rtol(info, actual), op=info.op, sound=sound)
        metrics = pair.metrics
        left_out = {
            "padding_rows": hidden.count,
            "absent_rows": padding.count - hidden.count,
            "not_judged_rows": pair.not_judged,
            "only_reference_rows": pair.only_reference,
        }
        if pair.unjudged:
            said = {"message": NO_REFERENCE, "metrics": metrics}
            return result_of(info, NOT_JUDGED, actual, **said, **left_out)
        rule, checks, worst_row = self._checks(info, actual, metrics, pair.rows, pair.counted)
        if info.op == "matmul_qk":
            folder = info.name.rpartition("/")[0]
            self._scores[folder] = Scores(metrics.max_expected, info.shape[-1])
        sides = Sides(self._golden, self._run, info, actual)
        scope = scope_of(self._mode, actual.name)
        further = Further()
        if self._policy.budget:  # another tolerance is what its author wrote
            further = further_checks(sides, pair.rows, pair.counted, scope=scope)
        checks += further.checks
        share = max((check.share for check in checks), default=float("inf"))
        stored = self._stored(info, actual) if rule == "budget" else None
        finite = pair.finite
        ok = finite and all(check.share <= 1.0 for check in checks) and bool(checks)
        noted = further.note if self._strict else ""
        ok = ok and not noted
        is_logits = info.sublayer == "lm_head"
        return result_of(
            info,
            PASSED if ok else "failed",
            actual,
            rule=rule,
            share=share if finite else float("inf"),
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
        folder, _, tap = info.name.rpartition("/")
        stored = self._stored(info, actual)
        if self._policy.budget and stored is not None and rows is not None:
            shape = (stored.scopes, *info.shape[:-1], len(BUDGET_STATISTICS))
            recorded = self._beside(stored.name, shape)
            budget = Budget.of(recorded, stored.scope, padding.rows, dtype=actual.dtype)
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


def _stated_dtype(run: GoldenFile) -> str:
    """The dtype that every output of a run has; empty where it may differ, as in a dump."""
    backend = run.recipe.get("backend") or {}
    return "" if backend.get("name") in ("import", "trace") else str(run.recipe.get("dtype", ""))


def _replayed(golden: GoldenFile, run: GoldenFile) -> list[str]:
    names = run.recipe.get("sublayers")
    if run.kind == "golden" or names is None:
        return list(golden.sublayers)
    unknown = [name for name in names if name not in golden.sublayers]
    if golden.kind == "run":
        return [name for name in names if name not in unknown]
    if unknown:
        message = f"{run.path}: replayed {unknown[0]}, which {golden.path} does not have"
        raise DamagedError(message)
    return list(names)


def _verify_inputs(golden: GoldenFile, names: list[str]) -> None:
    """Check the digests of what the sublayers were given and what is not compared itself: a
    damaged input would be charged to the engine."""
    compared = set(names)
    given = [info.name for info in golden.tensors.values() if info.role in _INPUT_ROLES]
    links = (golden.aliases.get(f"{name}/input", "") for name in names)
    given += [link for link in links if link and link.rpartition("/")[0] not in compared]
    golden.verify_all(given)


def _outputs(file: GoldenFile, mode: str) -> list[TensorInfo]:
    roles = (*_COMPARED_ROLES, COMPOSED) if mode == BOTH else _COMPARED_ROLES
    return [info for info in file.tensors.values() if info.role in roles]


def _rtol(info: TensorInfo, actual: TensorInfo) -> float:
    """Elements further off than four epsilons of the coarser type count as outside."""
    return 4 * max(DTYPES[info.dtype].eps, DTYPES[actual.dtype].eps)


def _extra(info: TensorInfo) -> TensorResult:
    return result_of(info, "extra", info, message="not in the golden", share=float("inf"))


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


def provenance(file: GoldenFile) -> Provenance:
    """Return where a golden or run comes from."""
    return Provenance(
        path=str(file.path),
        kind=file.kind,
        created_utc=file.created_utc,
        tool_version=file.tool_version,
        content_sha256=file.content_sha256,
        recipe=json.loads(json.dumps(file.recipe)),
    )
