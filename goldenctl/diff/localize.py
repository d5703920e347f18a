"""Which ops are wrong by themselves, and which only inherit an error."""

from __future__ import annotations

import math
from collections.abc import Mapping

from goldenctl.golden.modes import BOTH
from goldenctl.model.graph import CACHE_LINKS, Sublayer, own_name
from goldenctl.places import is_composed
from goldenctl.records.findings import Depth
from goldenctl.records.report import (
    NEUTRAL,
    NOT_JUDGED,
    PASSED,
    Report,
    SublayerResult,
    TensorResult,
    first_wrong,
)

AMPLIFIES = 2.0
"""A sublayer that makes an inherited error at least this many times larger amplifies it."""


def culprits(report: Report, graph: Mapping[str, Sublayer]) -> list[TensorResult]:
    """Return, in execution order, every op that is wrong although its inputs are right.

    ``graph`` maps each sublayer's path to its ops. In mode ``op`` that is every wrong op; in
    mode ``op+sublayer`` too, and a sublayer's composition that is wrong though no op is. In
    mode ``sublayer`` an op after a wrong one may be hidden; with only sublayer taps the
    whole sublayer stands for its ops. Crashed sublayers are culprits at their failing op.
    """
    found = []
    for sublayer in report.sublayers:
        found += _culprits_of(sublayer, graph[sublayer.name], every=report.mode in ("op", BOTH))
    return found


def _culprits_of(sublayer: SublayerResult, ops: Sublayer, *, every: bool) -> list[TensorResult]:
    all_wrong = [t for t in sublayer.tensors if _is_wrong(t)]
    wrong = {CACHE_LINKS.get(t.tap, t.tap): t for t in all_wrong if not is_composed(t.name)}
    if sublayer.failure is not None:
        failed = first_wrong(sublayer.tensors, sublayer.failure)
        return [failed] if failed is not None else []
    if all_wrong and not wrong:  # each op is right by itself
        return all_wrong[:1]
    return [
        wrong[op.output]
        for op in ops.ops
        if op.output in wrong and (every or not any(own_name(name) in wrong for name in op.inputs))
    ]


def _is_wrong(tensor: TensorResult) -> bool:
    return not tensor.ok and tensor.state not in NEUTRAL


def depths(local: Report, chain: Report, culprit_sublayers: set[str]) -> list[Depth]:
    """Join a sublayer replay and a chain replay into each sublayer's part."""
    isolated = {s.name: s for s in local.sublayers}
    result: list[Depth] = []
    inherited, inherited_ok = 0.0, True
    for sublayer in chain.sublayers:
        if sublayer.name.endswith("/embedding"):
            inherited, inherited_ok = 0.0, True
        error, ok = output_error(sublayer)
        own, _ = output_error(isolated[sublayer.name])
        if sublayer.name in culprit_sublayers:
            word = "culprit"
        elif not inherited_ok and ok:
            word = "healed"
        elif not ok and math.isfinite(inherited) and error >= AMPLIFIES * inherited > 0:
            word = "amplifier"
        else:
            word = "" if ok else "victim"
        result.append(Depth(sublayer.name, own, inherited, error, word))
        inherited, inherited_ok = error, ok
    return result


def output_error(sublayer: SublayerResult) -> tuple[float, bool]:
    """Return the relative L2 error of what leaves a sublayer, and whether it is right."""
    last = sublayer.tensors[-1] if sublayer.tensors else None
    if last is not None and last.state == NOT_JUDGED:
        return math.nan, True
    if last is None or last.metrics is None or last.metrics.mismatches:
        return float("inf"), False
    return last.metrics.rel_l2, last.state == PASSED
