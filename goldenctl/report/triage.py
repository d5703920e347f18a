"""A triage: how many tensors of each state, what differs, what changed."""

from __future__ import annotations

import math

from goldenctl.places import short_name
from goldenctl.records.words import percent, plural
from goldenctl.report.blocks import Block, Line, Lines, Mark, Table, numbers, table
from goldenctl.report.sections.verdict import what_differs
from goldenctl.sets.triage import CHANGED, CLOSER, WITHIN, WORDS, Change, Triage

_SHOWN = 10


def triage_view(triage: Triage) -> list[Block]:
    """Return the verdict, the counts, what differs, and the tensors that changed, first one
    first."""
    tensors = plural(len(triage.changes), "tensor")
    said = f" {triage.new} against {triage.old}: {tensors}, {triage.summary}"
    differs = () if triage.identical else what_differs(triage.differs)
    lines = [Line((Mark.of(triage.ok), said)), *(Line(text, indent=2) for text in differs)]
    blocks: list[Block] = [Lines(tuple(lines))]
    for state in (CHANGED, CLOSER):
        changes = triage.of(state)
        blocks += [_table(changes[:_SHOWN], WORDS[state])] if changes else []
        if len(changes) > _SHOWN:
            blocks.append(Lines((Line(f"... and {len(changes) - _SHOWN} more", indent=2),)))
    within = triage.of(WITHIN)
    if within and triage.ok:
        worst = max(within, key=lambda change: change.share)
        most = f"at most {percent(worst.share)} of the tolerance is used, by {_label(worst)}"
        blocks.append(Lines((Line(most, indent=2),)))
    return blocks


def _table(changes: list[Change], title: str) -> Table:
    rows = (
        (
            _label(change),
            f"{change.rel_l2:.1e}" if math.isfinite(change.rel_l2) else "-",
            percent(change.share) if math.isfinite(change.share) else "-",
            change.message,
        )
        for change in changes
    )
    return table((title, *numbers("rel L2", "used"), ""), rows)


def _label(change: Change) -> str:
    folder, _, tap = change.name.rpartition("/")
    short = short_name(folder)
    return f"{short}.{tap}" if short else change.name
