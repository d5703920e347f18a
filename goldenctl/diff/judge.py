"""Comparison of a run with its golden: pair, score and judge, in execution order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from goldenctl.diff.by_bytes import ByBytes
from goldenctl.diff.pair import check_pair
from goldenctl.diff.results import result_of
from goldenctl.diff.scopes import (
    budget_mode,
)
from goldenctl.diff.step_times import step_times
from goldenctl.diff.tolerance import Policy
from goldenctl.diff.traced import for_report, spare_inherited, trace_of, with_local
from goldenctl.diff.whole_run import hold_together
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.golden.calls import DRAWS, is_of_modules
from goldenctl.golden.composed import ROLE as COMPOSED
from goldenctl.golden.composed import leaving
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.modes import BOTH
from goldenctl.golden.schema import TensorInfo
from goldenctl.places import composed_name, is_composed, owner, place, short_name, tap_of
from goldenctl.records.determinism import Determinism
from goldenctl.records.report import (
    PASSED,
    RANDOM,
    Provenance,
    Report,
    SublayerResult,
    TensorResult,
    first_wrong,
    worst_share,
)
from goldenctl.threads import map_in_order

Progress = Callable[[int, int, str], None]
# Judges two tensors of one shape: expected, actual.
Scorer = Callable[[TensorInfo, TensorInfo], TensorResult]
_THREADS = min(4, os.cpu_count() or 1)
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
    for name, found in zip(
        names, map_in_order(judge.sublayer, names, threads=_THREADS), strict=True
    ):
        sublayers.append(found)
        progress(len(sublayers), len(names), short_name(name))
    sublayers = judge.together(sublayers)
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
        self._mode = mode
        sides = (golden, run)
        self.trace = trace_of(run)
        self._traces = [trace for trace in map(trace_of, sides) if trace is not None]
        self._strict = strict
        self._by_bytes = ByBytes(golden, run, policy, mode=mode, traces=self._traces, strict=strict)
        self._score = scorer or self._by_bytes
        self._not_computed = {tap for side in sides for tap in side.recipe.get("not_computed", ())}
        self._dtype = _stated_dtype(run)
        self._unheld: dict[str, str] = (golden.recipe.get("modules") or {}).get("unheld", {})
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

    def together(self, sublayers: list[SublayerResult]) -> list[SublayerResult]:
        """Hold all tensors that were judged by their bytes to what they may do together."""
        held = hold_together(sublayers, self._by_bytes.spreads)
        return held if self._strict else spare_inherited(held, self.trace)

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
        why = self._unheld.get(info.place.group)
        if why and result.metrics is not None and not result.message:
            result = msgspec.structs.replace(result, message=f"its budget says little: it {why}")
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
                else "this attention does not yield it"
                if is_of_modules(self._run.recipe)
                else "the engine's dump does not have it"
            )
            return result_of(info, "not_computed", message=said)
        if self._unheld.get(info.place.group, "").startswith(DRAWS):
            return result_of(info, RANDOM, actual, message=self._unheld[info.place.group])
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
        if not DTYPES[info.dtype].is_float and info.dtype == actual.dtype:
            return self._score(info, actual)
        floats = DTYPES[actual.dtype].is_float and DTYPES[info.dtype].is_float
        if not floats or self._dtype not in ("", actual.dtype):
            said = f"expected dtype {self._dtype if floats else info.dtype}, got {actual.dtype}"
            return result_of(info, "dtype_mismatch", actual, message=said, share=float("inf"))
        return self._score(info, actual)


def _stated_dtype(run: GoldenFile) -> str:
    """The dtype that every output of a run has; empty where it may differ, as in a dump or in
    modules."""
    backend = run.recipe.get("backend") or {}
    if is_of_modules(run.recipe):
        return ""
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
    given += [link for link in links if link and place(link).group not in compared]
    golden.verify_all(given)


def _outputs(file: GoldenFile, mode: str) -> list[TensorInfo]:
    roles = (*_COMPARED_ROLES, COMPOSED) if mode == BOTH else _COMPARED_ROLES
    return [info for info in file.tensors.values() if info.role in roles]


def _extra(info: TensorInfo) -> TensorResult:
    return result_of(info, "extra", info, message="not in the golden", share=float("inf"))


def provenance(file: GoldenFile) -> Provenance:
    """Return where a golden or run comes from."""
    return Provenance(
        path=str(file.path),
        kind=file.kind,
        created_utc=file.created_utc,
        tool_version=file.tool_version,
        content_digest=file.content_digest,
        recipe=json.loads(json.dumps(file.recipe)),
    )
