"""The words and number formats that all renderers share."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from goldenctl.errors import printable
from goldenctl.places import short_name
from goldenctl.records.findings import Culprit
from goldenctl.records.report import (
    ALONE,
    NEUTRAL,
    NOT_JUDGED,
    RANDOM,
    Report,
    SublayerResult,
    TensorResult,
)
from goldenctl.records.structure import Merged, merged, together, without_layer
from goldenctl.records.units import factor, human_ns
from goldenctl.records.units import plural as plural

RULES = {
    "budget": "recorded rounding budget",
    "truth": "recorded truth",
    ALONE: "budget of the op by itself",
    "sketch": "sketch",
    "digest": "equal bytes",
    "exact": "equal whole numbers",
}


def banners(report: Report) -> list[str]:
    """Return what must be known before any number: no engine, faults put in on purpose."""
    said = []
    if report.simulated:
        backends = [_object(s.recipe.get("backend")) for s in (report.golden, report.run)]
        noises = [b["noise"] for b in backends if isinstance(b.get("noise"), float)]
        stated = f", noise {' and '.join(f'{noise:.3g}' for noise in noises)}" if noises else ""
        said.append(f"SIMULATED: no engine computed these outputs{stated}")
    if report.faults:
        said.append(f"INJECTED FAULTS: {printable(', '.join(report.faults))}")
    return said


def dtypes(report: Report) -> str:
    """Say in what dtypes the two sides are, where they differ."""
    stated = [str(side.recipe.get("dtype", "")) for side in (report.golden, report.run)]
    if stated[0] == stated[1] or not all(stated):
        return ""
    names = sides_of(report)
    return ", ".join(f"{name} {dtype}" for name, dtype in zip(names, stated, strict=True))


def left_out(report: Report) -> str:
    """Say how much of the one side the other does not have; empty where it has all."""
    first, second = sides_of(report)
    count = plural(report.left_out, "sublayer")
    return f"not in the {second}: {count} of the {first}" if report.left_out else ""


def not_judged(report: Report) -> str:
    """Say of how much nothing can be judged, since the reference is not finite there or draws
    random numbers; empty where all can."""
    drawn = sum(tensor.state == RANDOM for tensor in report.tensors)
    if drawn:
        random = f"not judged: {plural(drawn, 'tensor')} of modules that draw random numbers"
        return "; ".join(filter(None, (random, _not_finite(report))))
    return _not_finite(report)


def _not_finite(report: Report) -> str:
    found = report.not_judged
    if not found:
        return ""
    whole = sum(tensor.state == NOT_JUDGED for tensor in found)
    rows = sum(tensor.not_judged_rows for tensor in found if tensor.state != NOT_JUDGED)
    parts = [plural(whole, "tensor")] if whole else []
    parts += [f"{plural(rows, 'row')} of {len(found) - whole} more"] if rows and whole else []
    parts += [f"{plural(rows, 'row')} of {plural(len(found), 'tensor')}"] if not whole else []
    first, (side, other) = Places(report).tensor(found[0].name), sides_of(report)
    said = f"not judged: {' and '.join(parts)}, where the {side} itself is NaN or Inf"
    if alone := sum(tensor.only_reference_rows for tensor in found):
        said += f" (in {plural(alone, 'row')} the {other} is not)"
    why = report.golden.recipe.get("not_finite")
    if isinstance(why, str) and why:
        return printable(f"{said}: {why}")
    return f"{said}, first in {first}; record in a wider dtype"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def group_of(name: str) -> str:
    """Return the case and step of a tensor's or sublayer's path: ``default/00``."""
    parts = name.split("/")
    return f"{parts[1]}/{parts[3]}" if len(parts) > 3 and parts[0] == "cases" else ""


def groups_of(report: Report) -> list[str]:
    """Return the cases and steps of a report, in its order."""
    return list(dict.fromkeys(group_of(s.name) for s in report.sublayers))


def reasons_of(report: Report) -> dict[str, str]:
    """Return why each case is there, by its name, where its recipe says so."""
    cases = report.golden.recipe.get("cases")
    entries = [case for case in cases if isinstance(case, dict)] if isinstance(cases, list) else []
    return {str(case.get("name")): str(case["why"]) for case in entries if case.get("why")}


_UNSCORED = {
    "crashed": "crashed",
    "missing": "missing",
    "extra": "extra",
    "shape_mismatch": "shape",
    "dtype_mismatch": "dtype",
    "not_judged": "not judged",
}
Matcher = Callable[[str], bool]


def matcher(only: str | None) -> Matcher:
    """Return what tells whether a tensor's path matches: as a glob of its dotted name or of
    a part of it, or as a plain part."""
    if only is None:
        return lambda _name: True

    def matches(name: str) -> bool:
        dotted = name.replace("/", ".")
        return only in dotted or only in name or fnmatch.fnmatchcase(dotted, f"*{only}*")

    return matches


def sides_of(report: Report) -> tuple[str, str]:
    """Return what the two sides are called: golden and run, of two goldens old and new."""
    if report.golden.kind == report.run.kind:
        return ("old", "new") if report.run.kind == "golden" else ("first", "second")
    return ("golden", "run")


def stands_for(sublayer: SublayerResult) -> TensorResult | None:
    """Return the tensor whose numbers stand for a sublayer: the first wrong, else the worst."""
    wrong = [t for t in sublayer.tensors if t.tap == sublayer.first_wrong]
    scored = [t for t in sublayer.tensors if t.metrics is not None]
    judged = [t for t in scored if t.state not in NEUTRAL]
    return next(iter(wrong), None) or max(judged or scored, key=lambda t: t.share, default=None)


class Places:
    """Short names of tensors and sublayers; with case and step where a report has several."""

    def __init__(self, report: Report) -> None:
        groups = groups_of(report)
        self._many = len(groups) > 1
        steps = {group.rpartition("/")[2] for group in groups}
        self._steps = len(steps) > 1

    def sublayer(self, path: str) -> str:
        """``layers.02.attention``, or ``default/01: layers.02.attention``."""
        short = short_name(path) or path
        return f"{self.group(group_of(path))}: {short}" if self._many else short

    def tensor(self, name: str) -> str:
        """``layers.02.attention.q_rope``."""
        path, _, tap = name.rpartition("/")
        return f"{self.sublayer(path)}.{tap}" if path else tap

    def culprit(self, alike: list[Culprit]) -> str:
        """Where merged culprits are: ``layers.02-04.attention.q_rope and k_rope in default/00``."""
        taps = list(dict.fromkeys(each.tap for each in alike))
        if len(alike) < 2:
            return self.tensor(alike[0].name)
        sublayers = [short_name(each.sublayer) or each.sublayer for each in alike]
        where, others = together(list(dict.fromkeys(sublayers)))
        also = f", also in {some(others)}" if others else ""
        groups = list(dict.fromkeys(self.group(group_of(each.name)) for each in alike))
        seen = f" in {some(groups)}" if self._many or len(groups) > 1 else ""
        return f"{where}.{' and '.join(taps)}{also}{seen}"

    def group(self, group: str) -> str:
        """``default``, or ``default/01`` where there are several steps."""
        return group if self._steps else group.rpartition("/")[0] or group


def merged_culprits(report: Report) -> list[list[Culprit]]:
    """Return the culprits, those of one op and one bug in several layers, cases and steps
    together, and ops that one known bug is in at the same places."""
    found: dict[tuple[object, ...], list[Culprit]] = {}
    for culprit in report.culprits:
        bug = tuple(cause.title for cause in culprit.named) or without_layer(culprit.summary)
        sublayer = short_name(culprit.sublayer) or culprit.sublayer
        key = (without_layer(f"{sublayer}."), culprit.tap, bug)
        found.setdefault(key, []).append(culprit)
    together: dict[tuple[object, ...], list[Culprit]] = {}
    for own, alike in found.items():
        places = tuple(each.sublayer for each in alike)
        shared = (own[2], places) if alike[0].named else own
        together.setdefault(shared, []).extend(alike)
    return list(together.values())


_IN_PERCENT = 10.0
"""Shares of a tolerance up to this are written in percent, larger ones as factors."""


def percent(share: float) -> str:
    """Return a share of a tolerance for a cell: ``69%``, ``850%``, ``48.9×``, ``1.8 million×``."""
    if not math.isfinite(share):
        return "∞"
    return f"{amount(share)}×" if share > _IN_PERCENT else f"{share:,.0%}"


def used(tensor: TensorResult) -> str:
    """Return the part of its tolerance that a tensor uses; of one without scores, why it has
    none."""
    lost = tensor.metrics is not None and tensor.metrics.mismatches and not tensor.ok
    return _UNSCORED.get(tensor.state) or ("NaN" if lost else percent(tensor.share))


def used_by(sublayer: SublayerResult) -> str:
    """Return the same of a sublayer, by the tensor that stands for it."""
    shown = stands_for(sublayer)
    return used(shown) if shown is not None else percent(sublayer.share)


def of_tolerance(share: float) -> str:
    """Return a share in a sentence: ``850% of its tolerance``, ``48.9 times its tolerance``."""
    if not math.isfinite(share):
        return "beyond any tolerance"
    many = share > _IN_PERCENT
    return f"{amount(share)} times its tolerance" if many else f"{percent(share)} of its tolerance"


def amount(value: float) -> str:
    """Return a factor with three significant digits: ``0.25``, ``1,210``, ``1.77 million``."""
    rounded = float(f"{value:.3g}")
    for scale, unit in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if abs(rounded) >= scale:
            return f"{amount(rounded / scale)}{unit}"
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.3g}"


NOISE_NS = 30_000
"""Times of one launch below this say little: of four replays in a row on two busy cores the
longest was 1.9 times the shortest below 10 µs (3.7 times for one op in ten), above it 1.2 times."""


def duration(ns: int) -> str:
    """Return a time with its unit in two digits, ``-`` when none was taken."""
    return human_ns(float(f"{ns:.2g}")) if ns else "-"


def ratio(actual_ns: int, expected_ns: int) -> str:
    """Return how many times longer actual took, ``-`` where either is not above the noise."""
    told = min(actual_ns, expected_ns) >= NOISE_NS
    return factor(actual_ns / expected_ns) if told else "-"


def rules(report: Report) -> str:
    """Return by what the tensors were judged, and how many by each."""
    counts: dict[str, int] = {}
    for tensor in report.tensors:
        if tensor.rule:
            counts[tensor.rule] = counts.get(tensor.rule, 0) + 1
    said = [f"{RULES.get(rule, f'tolerance {rule}')} ({n})" for rule, n in counts.items()]
    return ", ".join(said) or report.policy


def labels_of(reports: Sequence[Report]) -> list[str]:
    """Name each run by its dtype where that tells them apart, else by its file."""
    names = [
        [str(report.run.recipe.get("dtype", "")) for report in reports],
        [Path(report.run.path).stem for report in reports],
        [report.run.path for report in reports],
    ]
    return next((n for n in names if len(set(n)) == len(n) and all(n)), names[-1])


def some(items: Iterable[str], most: int = 3) -> str:
    """Join the first items; say when there are more."""
    shown = list(items)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")


def structure(report: Report) -> list[Merged]:
    """Return what an engine does differently from the model, what is the same in several layers
    once."""
    return merged(report.structure, len(groups_of(report)))
