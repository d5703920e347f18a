"""Blame's culprits with their bugs, and what did not run to its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from goldenctl.places import short_name
from goldenctl.records.findings import Culprit
from goldenctl.records.report import CRASHED, Report, SublayerResult
from goldenctl.records.structure import together, without_layer
from goldenctl.records.uncompared import not_compared
from goldenctl.records.words import Places, merged_culprits, plural, some
from goldenctl.report.blocks import (
    Block,
    Fold,
    Line,
    Lines,
    Mark,
    Pre,
    Section,
    Span,
    numbers,
    table,
)
from goldenctl.report.sections.choice import Choice

_MOST_CULPRITS, _MOST_CRASHED, _MOST_STDERR = 50, 20, 4000


def culprits(report: Report, choice: Choice) -> Section:
    """Return the ops that are wrong by themselves and the bugs that reproduce them."""
    findings, places = report.findings, Places(report)
    if findings is None:
        return Section("culprits", "Culprits", ())
    blocks: list[Block] = []
    if not findings.culprits:
        silent = not_compared(report)
        right = f": every op is right, given right inputs{'; ' * bool(silent)}"
        head = (Mark.RIGHT, " ", Span("no culprit", "good"), right, Span(silent, "warn"))
        blocks.append(Lines((Line(head),)))
    merged = [
        shown
        for alike in merged_culprits(report)
        if (shown := [culprit for culprit in alike if choice.matches(culprit.name)])
    ]
    for alike in merged[:_MOST_CULPRITS]:
        blocks += _culprit(places.culprit(alike), min(alike, key=_explained), choice)
    left = len(merged) - _MOST_CULPRITS
    last = [f"and {left} more"] if left > 0 else []
    last += [findings.note] if findings.note else []
    blocks += [Lines(tuple(map(Line, last)))] if last else []
    return Section("culprits", "Culprits", tuple(blocks))


def _explained(culprit: Culprit) -> float:
    return culprit.named[0].explained if culprit.named else 0.0


def _culprit(where: str, culprit: Culprit, choice: Choice) -> list[Block]:
    head = (Mark.WRONG, " ", Span("culprit", "bad"), " ", Span(where, "strong"), f" ({culprit.op})")
    untried = () if choice.brief else tuple(f"not tried: {each}" for each in culprit.skipped)
    several = len(culprit.named) > 1
    unsure = ("this input cannot tell these apart; another prompt may",) if several else ()
    blocks: list[Block] = [Lines((Line(head, (culprit.summary, *unsure, *untried)),))]
    if several:
        rows = [(c.title, f"{c.explained:.2%}", f"{c.residual:.1e}") for c in culprit.named]
        made = table(("bug that reproduces it", *numbers("explained", "left over")), rows)
        blocks.append(Fold("What reproduces it", (made,)))
    return blocks


def crashes(report: Report, choice: Choice) -> Section:
    """Return how sublayers failed to run, those alike together, and where to read more of it."""
    if choice.brief and report.findings is not None:  # blame has named them
        return Section("crashes", "What did not run", ())
    crashed = [s for s in report.sublayers if s.state == CRASHED]
    places, alike = Places(report), dict[str, list[SublayerResult]]()
    for sublayer in crashed:
        if sublayer.failure is not None:
            kind = without_layer(f"{short_name(sublayer.name)}.")
            alike.setdefault(f"{kind}{_why(sublayer.failure)}", []).append(sublayer)
    most, groups = 1 if choice.brief else _MOST_CRASHED, list(alike.values())
    blocks: list[Block] = []
    for number, group in enumerate(groups[:most]):
        blocks += _crash([places.sublayer(each.name) for each in group], group[0], not number)
    if len(groups) > most:
        blocks.append(Lines((Line(f"and {len(groups) - most} more in other ways"),)))
    blocks += _inspect(report, len(crashed))
    return Section("crashes", "What did not run", tuple(blocks))


def _why(failure: dict[str, Any]) -> str:
    at = f" at {failure['tap']}" if "tap" in failure else ""
    return f"{failure.get('reason', '')}{at}: {failure.get('message', '')}"


def _crash(names: list[str], first: SublayerResult, opened: bool) -> list[Block]:
    failure = first.failure or {}
    where, others = together(names)
    also = f", also {some(others)}" if others else ""
    head = (Mark.WRONG, " ", Span(where, "strong"), f" did not run to the end{also}")
    said = str(failure.get("stderr", ""))[-_MOST_STDERR:]
    last = (Fold("What it said last", (Pre(said),), opened),) if said.strip() else ()
    return [Lines((Line(head, (_why(failure),)),)), *last]


def _inspect(report: Report, count: int) -> Sequence[Lines]:
    """Where the reasons are: blame and check replay into a folder that is gone afterwards, unless
    check is told to keep it."""
    if not count or report.findings is not None:
        return []
    said = f"{plural(count, 'sublayer')} crashed"
    what = "its reason and command" if count == 1 else "the reason and command of each"
    if report.command in ("diff", "verify"):
        command = f"goldenctl inspect {shlex.quote(report.run.path)}"
        return [Lines((Line((f"{said}: ", Span(command, "code"), f" shows {what}")),))]
    if report.command == "check":
        keep = Span("--keep FOLDER, goldenctl inspect", "code")
        return [Lines((Line((f"{said}: with ", keep, " shows why")),))]
    return []


SECTIONS = (culprits, crashes)
