"""Blame's findings on the terminal: culprits, how the error spreads, the graft."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.records.findings import Depth, Findings, Graft
from goldenctl.records.report import Report
from goldenctl.records.uncompared import not_compared
from goldenctl.records.units import factor
from goldenctl.records.words import (
    Matcher,
    Places,
    group_of,
    merged_culprits,
    not_judged,
    plural,
)
from goldenctl.report.answers import main_group
from goldenctl.report.console_parts import clean, indented

_COLOURS = {"culprit": "bold red", "amplifier": "yellow", "victim": "dim", "healed": "green"}


def findings_view(
    report: Report, matches: Matcher, *, every: bool, verbose: bool
) -> RenderableType:
    """Show the culprits with their diagnoses, the depth table and the graft.

    Of several cases and steps the table is of the one that is wrong first, unless ``every``;
    ``verbose`` adds the faults that could not be tried.
    """
    findings = report.findings or Findings()
    places = Places(report)
    lines = list(_culprits(report, places, matches, verbose=verbose))
    if findings.note:
        lines.append(clean(findings.note))
    main = main_group(report)
    depths = [
        depth
        for depth in findings.depths
        if matches(depth.name) and (every or group_of(depth.name) == main)
    ]
    parts: list[RenderableType] = list(indented(lines))
    if findings.depths:
        parts += [Text(), _depth_table(depths, places)]
    if findings.graft is not None:
        graft = graft_line(findings.graft, len(findings.culprits))
        parts += [Text(), Text(graft)]
    return Group(*parts)


def _culprits(report: Report, places: Places, matches: Matcher, *, verbose: bool) -> Iterator[str]:
    if not report.culprits:
        head = "[bold green]✓ no culprit[/]: every op is right, given right inputs"
        silent = not_compared(report)
        yield f"{head}; [bold yellow]{clean(silent)}[/]" if silent else head
    if unjudged := not_judged(report):
        yield f"[yellow]{clean(unjudged)}[/]"
    for alike in merged_culprits(report):
        shown = [culprit for culprit in alike if matches(culprit.name)]
        for culprit in shown[:1]:
            place = clean(places.culprit(shown))
            yield f"[bold red]✗ culprit[/] [bold]{place}[/] ({clean(culprit.op)})"
            yield f"    {clean(culprit.summary)}"
            for skipped in culprit.skipped if verbose else ():
                yield f"    not tried: {clean(skipped)}"


def _depth_table(depths: list[Depth], places: Places) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sublayer", no_wrap=True)
    for title in ("local", "inherited", "chained", "times"):
        table.add_column(title, justify="right")
    table.add_column("")
    for depth in depths:
        grew = factor(depth.amplification) if math.isfinite(depth.amplification) else "-"
        errors = (f"{x:.1e}" for x in (depth.local, depth.inherited, depth.chained))
        word = Text(printable(depth.word), _COLOURS.get(depth.word, ""))
        table.add_row(clean(places.sublayer(depth.name)), *errors, grew, word)
    return table


def graft_line(graft: Graft, culprits: int) -> str:
    """Return what the graft showed, as one sentence."""
    line = (
        f"graft: with the golden's tensor in place of {plural(culprits, 'culprit')}, "
        f"the chain has {plural(graft.wrong_after, 'wrong sublayer')} "
        f"instead of {graft.wrong_before}"
    )
    if graft.top1 is not None:
        golden, before, after = graft.top1
        line += f"; top-1 token {before} → {after}, golden {golden}: {graft.top1_state}"
    return line
