"""Owns several reports of one golden side by side: dtypes, backends or versions in columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from goldenctl.diff.report import PASSED, REPORT_VERSION, Report, SublayerResult, worst_share
from goldenctl.errors import printable
from goldenctl.report.console import banners
from goldenctl.report.console_parts import make_console
from goldenctl.report.console_table import Row, SublayerTable
from goldenctl.report.json import to_json
from goldenctl.report.words import Places, numbers, percent, plural, stands_for


def print_matrix(reports: Sequence[Report], console: Console | None = None) -> None:
    """Print one line on each run, then every sublayer with a column for each run: the part of
    its tolerance that is used and the relative L2 error of the tensor that stands for it."""
    console = console or make_console()
    labels = labels_of(reports)
    for label, report in zip(labels, reports, strict=True):
        console.print(_line(label, report))
        for banner in banners(report):
            console.print(Text(f"  {banner}", "bold yellow"))
    places = Places(reports[0])
    columns = [{sublayer.name: sublayer for sublayer in r.sublayers} for r in reports]
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column):
        found = [column.get(name) for column in columns]
        cells = [cell for sublayer in found for cell in _cells(sublayer)]
        ok = all(sublayer is None or sublayer.state == PASSED for sublayer in found)
        rows.append(Row(_mark(ok), places.sublayer(name), _taps(labels, found), cells))
    titles = [title for label in labels for title in (label, "rel L2")]
    console.print()
    console.print(SublayerTable(titles, rows, spare=(("rel L2",),)))
    console.print("\nrel L2: of the tensor in parentheses, the first wrong, else of the worst")


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
    shown = stands_for(sublayer)
    mark = "[green]✓[/]" if sublayer.state == PASSED else "[bold red]✗[/]"
    error = numbers(shown.metrics if shown is not None else None)[0]
    return (f"{mark} {percent(sublayer.share)}", error)


def _taps(labels: Sequence[str], found: Sequence[SublayerResult | None]) -> str:
    """The tensor that is wrong first; which run's it is, where the runs are not of one mind."""
    pairs = zip(labels, found, strict=True)
    wrong = {label: s.first_wrong for label, s in pairs if s is not None and s.first_wrong}
    if len(set(wrong.values())) <= 1:
        return next(iter(wrong.values()), "")
    return ", ".join(f"{label} {tap}" for label, tap in wrong.items())


def _mark(ok: bool) -> Text:
    return Text("✓", "green") if ok else Text("✗", "bold red")
