"""The search for culprits in a golden of modules: calls from recorded inputs, a chain, a graft."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from goldenctl.diff.illustrate import illustrate
from goldenctl.diff.judge import compare
from goldenctl.diff.localize import AMPLIFIES, output_error
from goldenctl.diff.tolerance import Policy
from goldenctl.golden.calls import MODULE, is_within, module_of
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.places import place_of
from goldenctl.records.findings import Culprit, Depth, Findings, Graft
from goldenctl.records.report import PASSED, Report, SublayerResult

if TYPE_CHECKING:
    from goldenctl.reference.modules.replay import ModuleReplay
    from goldenctl.reference.modules.subject import Subject

Notify = Callable[[str], None]
_OWN = "its modules are right by themselves: its own code is not"


class ModuleInvestigation:
    """Runs the replays that blame needs, in a folder of its own."""

    def __init__(
        self,
        golden: GoldenFile,
        subject: Subject,
        how: ModuleReplay,
        policy: Policy,
        folder: Path,
        notify: Notify,
    ) -> None:
        self._golden = golden
        self._subject = subject
        self._how = how
        self._policy = policy
        self._folder = folder
        self._notify = notify

    def run(self) -> Report:
        """Replay each call from its recorded inputs, then the model as a chain, then the chain with
        the golden's tensors in place of the culprits'."""
        base, run = self._replayed("base", MODULE)
        found = wrong_by_themselves(base, self._golden.recipe["modules"]["root"])
        chain, chained = self._replayed("chain", "chain")
        inherited = chained.recipe.get("inherited", {})
        findings = Findings(
            culprits=tuple(culprit_of(each, base, self._root) for each in found),
            depths=tuple(_depths(base, chain, {each.name for each in found}, inherited)),
            graft=self._grafted(chain, found) if found else None,
        )
        report = replace(base, command="blame", findings=findings)
        return replace(illustrate(report, self._golden, run), run=replace(base.run, path=""))

    @property
    def _root(self) -> str:
        return str(self._golden.recipe["modules"]["root"])

    def _replayed(
        self, name: str, mode: str, grafts: frozenset[str] = frozenset()
    ) -> tuple[Report, GoldenFile]:
        from goldenctl.reference.modules.replay import replay_modules

        self._notify(f"replaying in mode {'graft' if grafts else mode}")
        path = self._folder / f"{name}.h5"
        how = dataclasses.replace(self._how, mode=mode, grafts=grafts)
        replay_modules(self._golden, self._subject, path, how)
        run = open_golden(path)
        return compare(self._golden, run, self._policy), run

    def _grafted(self, chain: Report, found: list[SublayerResult]) -> Graft:
        after, _ = self._replayed("graft", "chain", frozenset(each.name for each in found))
        modules = {module_of(each.name) for each in found}

        def outside(name: str) -> bool:
            module = module_of(name)
            return not any(
                module == other or is_within(module, other, self._root) for other in modules
            )

        def wrong(report: Report) -> int:
            return sum(s.state != PASSED and outside(s.name) for s in report.sublayers)

        return Graft(wrong(chain), wrong(after))


def wrong_by_themselves(report: Report, root: str) -> list[SublayerResult]:
    """Return, in order of execution, the calls that are wrong from right inputs although every
    module inside them is right."""
    wrong = [each for each in report.sublayers if each.state != PASSED]
    return [
        each
        for each in wrong
        if not any(
            place_of(other.name).step_path == place_of(each.name).step_path
            and is_within(module_of(other.name), module_of(each.name), root)
            for other in wrong
        )
    ]


def culprit_of(call: SublayerResult, report: Report, root: str) -> Culprit:
    """Return what a report says of a call that is wrong by itself."""
    first = next((t for t in call.tensors if t.tap == call.first_wrong), None)
    tap, op = (first.tap, first.op) if first is not None else ("output", "")
    inside = any(
        is_within(module_of(each.name), module_of(call.name), root) for each in report.sublayers
    )
    said = str((call.failure or {}).get("message", "")) or (first.message if first else "")
    return Culprit(
        name=f"{call.name}/{tap}",
        sublayer=call.name,
        tap=tap,
        op=op,
        message=said or (_OWN if inside else ""),
    )


def _depths(
    base: Report, chain: Report, culprits: set[str], inherited: dict[str, float]
) -> list[Depth]:
    """Join the two replays into each call's part; what it inherits was measured on its way in."""
    isolated = {each.name: each for each in base.sublayers}
    found = []
    for call in chain.sublayers:
        error, ok = output_error(call)
        own, _ = output_error(isolated[call.name])
        came = inherited.get(call.name, math.nan)
        if call.name in culprits:
            word = "culprit"
        elif not ok and math.isfinite(came) and error >= AMPLIFIES * came > 0:
            word = "amplifier"
        else:
            word = "" if ok else "victim"
        found.append(Depth(call.name, own, came, error, word))
    return found
