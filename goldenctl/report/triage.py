"""A triage on the terminal: how many tensors of each state, what differs, what changed."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from goldenctl.errors import printable
from goldenctl.places import short_name
from goldenctl.records.units import factor
from goldenctl.records.words import percent, plural
from goldenctl.report.console import what_differs
from goldenctl.sets.triage import CHANGED, CLOSER, WITHIN, WORDS, Change, Triage

_SHOWN = 10


def print_triage(triage: Triage, console: Console) -> None:
    """Print the verdict, the counts, what differs, and the tensors that changed, first one
    first."""
    mark = "[bold green]✓[/]" if triage.ok else "[bold red]✗[/]"
    pair = f"{printable(triage.new)} against {printable(triage.old)}"
    console.print(
        f"{mark} {escape(pair)}: {plural(len(triage.changes), 'tensor')}, {triage.summary}"
    )
    if not triage.identical:
        for line in what_differs(triage.differs):
            console.print(line)
    for state in (CHANGED, CLOSER):
        changes = triage.of(state)
        if changes:
            console.print()
            console.print(_table(changes[:_SHOWN], WORDS[state]))
        if len(changes) > _SHOWN:
            console.print(f"  ... and {len(changes) - _SHOWN} more")
    within = triage.of(WITHIN)
    if within and triage.ok:
        worst = max(within, key=lambda change: change.share)
        name = escape(printable(_label(worst)))
        console.print(f"  at most {percent(worst.share)} of the tolerance is used, by {name}")


def _table(changes: list[Change], title: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    for heading in ("rel L2", "used"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for change in changes:
        used = factor(change.share) if math.isfinite(change.share) else "-"
        error = f"{change.rel_l2:.1e}" if math.isfinite(change.rel_l2) else "-"
        cells = (_label(change), error, used, change.message)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    return table


def _label(change: Change) -> str:
    folder, _, tap = change.name.rpartition("/")
    short = short_name(folder)
    return f"{short}.{tap}" if short else change.name
