"""The search for culprits: isolated replays, a chain, a graft, and what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from goldenctl.diff.illustrate import illustrate
from goldenctl.diff.judge import compare
from goldenctl.diff.localize import culprits, depths
from goldenctl.diff.tolerance import Policy
from goldenctl.errors import GoldenctlError, MissingError, require_torch
from goldenctl.golden.composed import default_mode
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.modes import BOTH
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import CACHE_LINKS, Sublayer
from goldenctl.places import is_composed, plain_tap
from goldenctl.records.findings import Culprit, Findings, Graft
from goldenctl.records.report import Report, TensorResult
from goldenctl.replay.backend import Backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay

if TYPE_CHECKING:
    from goldenctl.studies.diagnose import Diagnosis

Notify = Callable[[str], None]


class Investigation:
    """Runs the replays that blame needs, in a folder of its own."""

    def __init__(
        self,
        golden: GoldenFile,
        checkpoint_path: Path,
        *,
        backend: Backend,
        options: Options,
        policy: Policy,
        folder: Path,
        notify: Notify,
    ) -> None:
        self._golden = golden
        self._checkpoint_path = checkpoint_path
        self._backend = backend
        self._options = options
        self._policy = policy
        self._folder = folder
        self._notify = notify
        config = golden.config
        self._config = config
        self._graph: dict[str, Sublayer] = choose_sublayers(
            golden, config, options.layers, fused=False
        )

    def run(self) -> Report:
        """Replay from recorded inputs, by op where taps allow, and as a chain; then diagnose and
        graft.

        The report is of the replay from recorded inputs, with the findings of all.
        """
        base = self._replayed(default_mode(self._golden.recipe))
        found, note = culprits(base, self._graph), ""
        if found and self._golden.recipe["taps"] != "op":
            note = "only sublayer taps were recorded: record with --taps op to find the op"
        chain = self._replayed("chain")
        diagnoses, lack = self._diagnosed(found) if found and not note else ({}, "")
        findings = Findings(
            culprits=tuple(culprit_of(t, diagnoses.get(t.name)) for t in found),
            depths=tuple(depths(base, chain, {t.sublayer for t in found})),
            graft=self._grafted(chain, found) if found and not note else None,
            note=note or lack,
        )
        report = replace(base, command="blame", findings=findings)
        run = open_golden(self._folder / f"{base.mode}.h5")
        # The run is not kept, so its path would lead nowhere.
        return replace(illustrate(report, self._golden, run), run=replace(base.run, path=""))

    def _replayed(self, mode: str, grafts: frozenset[str] = frozenset()) -> Report:
        name = "graft" if grafts else mode
        self._notify(f"replaying in mode {name}")
        path = self._folder / f"{name}.h5"
        options = dataclasses.replace(self._options, mode=mode, grafts=grafts)
        replay(self._golden, self._checkpoint_path, path, backend=self._backend, options=options)
        return compare(self._golden, open_golden(path), self._policy)

    def _diagnosed(self, found: list[TensorResult]) -> tuple[dict[str, Diagnosis], str]:
        try:
            require_torch("diagnosis")
        except MissingError as error:
            return {}, str(error)
        from goldenctl.reference.patch import Emulator
        from goldenctl.studies.diagnose import Diagnoser

        run = open_golden(self._folder / f"{BOTH}.h5")
        checkpoint = Checkpoint.open(self._checkpoint_path)
        emulator = Emulator(self._golden, checkpoint, self._golden.recipe["dtype"])
        diagnoser = Diagnoser(self._golden, emulator)
        result = {}
        for culprit in found:
            if culprit.metrics is not None and not is_composed(culprit.name):
                self._notify(f"diagnosing {culprit.name}")
                sublayer = self._graph[culprit.sublayer]
                actual = run.map(culprit.name)
                diagnosis = diagnoser.diagnose(culprit.sublayer, sublayer, culprit.tap, actual)
                result[culprit.name] = diagnosis
        return result, ""

    def _grafted(self, chain: Report, found: list[TensorResult]) -> Graft | None:
        taps = [(t.sublayer, plain_tap(t.tap)) for t in found]
        names = frozenset(f"{path}/{CACHE_LINKS.get(tap, tap)}" for path, tap in taps)
        try:
            after = self._replayed("chain", names)
        except GoldenctlError as error:
            self._notify(f"the graft could not be replayed: {error}")
            return None
        return Graft(_wrong(chain), _wrong(after), self._top1())

    def _top1(self) -> tuple[int, int, int] | None:
        heads = [name for name in self._graph if name.endswith("/lm_head")]
        if not heads:
            return None
        name = f"{heads[0]}/output"
        files = (self._golden, *(open_golden(self._folder / f"{m}.h5") for m in ("chain", "graft")))
        first, second, third = (int(f.map(name)[0, -1].argmax()) for f in files)
        return first, second, third


_ADDS_UP = "each op is right by itself, but not one after another: their errors add up"


def culprit_of(tensor: TensorResult, diagnosis: Diagnosis | None) -> Culprit:
    """Return what a report says of a culprit."""
    return Culprit(
        name=tensor.name,
        sublayer=tensor.sublayer,
        tap=tensor.tap,
        op=tensor.op,
        message=tensor.message or (_ADDS_UP if is_composed(tensor.name) else ""),
        diagnosed=diagnosis is not None,
        causes=tuple(cause.cause for cause in diagnosis.causes) if diagnosis else (),
        looks_like=diagnosis.looks_like if diagnosis else (),
        nearest=diagnosis.nearest.cause if diagnosis and diagnosis.nearest else None,
        skipped=diagnosis.skipped if diagnosis else (),
    )


def _wrong(report: Report) -> int:
    return sum(s.state != "passed" for s in report.sublayers)
