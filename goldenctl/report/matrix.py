"""Owns several reports of one golden side by side: dtypes, backends or versions in columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from goldenctl.diff.report import PASSED, REPORT_VERSION, Report, SublayerResult, worst_share
from goldenctl.errors import printable
from goldenctl.report.json import to_json
from goldenctl.report.words import Places, percent, plural


def print_matrix(reports: Sequence[Report], console: Console | None = None) -> None:
    """Print one line on each run, then every sublayer with a column for each run: the part of
    its tolerance that is used and the relative L2 error, both of its worst tensor."""
    console = console or Console(highlight=False)
    labels = labels_of(reports)
    for label, report in zip(labels, reports, strict=True):
        console.print(_line(label, report))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sublayer", overflow="fold")
    for label in labels:
        table.add_column(escape(printable(label)), justify="right", no_wrap=True)
        table.add_column("rel L2", justify="right", no_wrap=True)
    places = Places(reports[0])
    columns = [{sublayer.name: sublayer for sublayer in r.sublayers} for r in reports]
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = [cell for column in columns for cell in _cells(column.get(name))]
        table.add_row(escape(printable(places.sublayer(name))), *cells)
    console.print()
    console.print(table)


def render(reports: Sequence[Report]) -> str:
    """Return all reports as one JSON document, ``reports[]`` under their labels."""
    labelled = [
        {"label": label, **to_json(report)}
        for label, report in zip(labels_of(reports), reports, strict=True)
    ]
    data = {
        "report_version": REPORT_VERSION,
        "ok": all(report.ok for report in reports),
        "reports": labelled,
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def labels_of(reports: Sequence[Report]) -> list[str]:
    """Name each run by its dtype where that tells them apart, else by its file."""
    names = [
        [str(report.run.recipe.get("dtype", "")) for report in reports],
        [Path(report.run.path).stem for report in reports],
        [report.run.path for report in reports],
    ]
    return next((n for n in names if len(set(n)) == len(n) and all(n)), names[-1])


def _line(label: str, report: Report) -> str:
    mark = "[bold green]✓[/]" if report.ok else "[bold red]✗[/]"
    compared = report.compared
    said = f"{plural(len(compared), 'tensor')}, at most {percent(worst_share(compared))} "
    said += "of tolerance used"
    first = report.first_wrong
    if first is not None:
        wrong = sum(not tensor.ok for tensor in compared)
        where = escape(printable(Places(report).tensor(first.name)))
        said = f"{wrong} of {len(compared)} tensors are wrong, first {where}"
    rules = ", ".join(dict.fromkeys(t.rule for t in compared if t.rule))
    return f"{mark} [bold]{escape(printable(label))}[/]: {said} (mode {report.mode}, by {rules})"


def _cells(sublayer: SublayerResult | None) -> tuple[str, str]:
    if sublayer is None:
        return ("-", "-")
    scored = [tensor for tensor in sublayer.tensors if tensor.metrics is not None]
    worst = max(scored, key=lambda tensor: tensor.share, default=None)
    mark = "[green]✓[/]" if sublayer.state == PASSED else "[bold red]✗[/]"
    error = f"{worst.metrics.rel_l2:.1e}" if worst and worst.metrics else "-"
    return (f"{mark} {percent(sublayer.share)}", error)
