"""Several reports of one golden side by side: dtypes, backends or versions in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.records.report import PASSED, Report, SublayerResult, worst_share
from goldenctl.records.uncompared import not_compared
from goldenctl.records.words import (
    Places,
    banners,
    labels_of,
    not_judged,
    percent,
    plural,
    some,
    stands_for,
    structure,
    used_by,
)
from goldenctl.report.console_parts import make_console
from goldenctl.report.console_table import Row, SublayerTable
from goldenctl.report.measures import REL_L2

HINT = "rel L2: of the tensor in parentheses, the first wrong, else of the worst"


@dataclass(frozen=True)
class Line:
    """One run: its label, what is said of it, and what must be known before any number."""

    label: str
    ok: bool
    said: str
    banners: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A sublayer of one run: the part of its tolerance that is used, and the relative L2 error
    of the tensor that stands for it."""

    ok: bool
    used: str
    error: str


@dataclass(frozen=True)
class MatrixRow:
    """A sublayer of all runs, None for one that lacks it; ``taps`` are wrong first."""

    ok: bool
    place: str
    taps: str
    cells: Sequence[Cell | None]


def lines(reports: Sequence[Report]) -> list[Line]:
    """Return one line for each run."""
    return [
        Line(label, report.ok, _said(report), banners(report))
        for label, report in zip(labels_of(reports), reports, strict=True)
    ]


def matrix_rows(reports: Sequence[Report]) -> Iterator[MatrixRow]:
    """Yield every sublayer that any of the runs has."""
    labels, places = labels_of(reports), Places(reports[0])
    columns = [{sublayer.name: sublayer for sublayer in r.sublayers} for r in reports]
    for name in dict.fromkeys(name for column in columns for name in column):
        found = [column.get(name) for column in columns]
        cells = [_cell(sublayer) if sublayer is not None else None for sublayer in found]
        ok = all(cell is None or cell.ok for cell in cells)
        yield MatrixRow(ok, places.sublayer(name), _taps(labels, found), cells)


def verdict(reports: Sequence[Report]) -> str:
    """Say how many of the runs are right, and of which that is said in part only."""
    good = sum(report.ok for report in reports)
    said = f"{good} of {plural(len(reports), 'run')} within tolerance"
    pairs = zip(labels_of(reports), reports, strict=True)
    silent = [label for label, report in pairs if report.ok and not_compared(report)]
    return f"{said}; not every output was compared of {some(silent)}" if silent else said


def print_matrix(reports: Sequence[Report], console: Console | None = None) -> None:
    """Print one line on each run, then every sublayer with a column for each run."""
    console = console or make_console()
    for line in lines(reports):
        label, said = escape(printable(line.label)), escape(line.said)
        console.print(f"{_mark(line.ok).markup} [bold]{label}[/]: {said}")
        for banner in line.banners:
            console.print(Text(f"  {banner}", "bold yellow"))
    rows = [
        Row(_mark(row.ok), row.place, row.taps, [x for cell in row.cells for x in _shown(cell)])
        for row in matrix_rows(reports)
    ]
    titles = [title for label in labels_of(reports) for title in (label, "rel L2")]
    table = SublayerTable(titles, rows, spare=(("rel L2",),))
    console.print()
    console.print(table)
    if any("rel L2" in segment.text for segment in console.render_lines(table)[0]):
        console.print(f"\n{HINT}")


def _said(report: Report) -> str:
    compared = report.compared
    said = f"{plural(len(compared), 'tensor')}, at most {percent(worst_share(compared))} "
    said += "of tolerance used"
    if unjudged := not_judged(report):
        said += f"; {unjudged}"
    first = report.first_wrong
    if report.ok and (silent := not_compared(report)):
        said += f"; {silent}"
    if first is not None:
        wrong = sum(not tensor.ok for tensor in compared)
        where = printable(Places(report).tensor(first.name))
        said = f"{wrong} of {len(compared)} tensors are wrong, first {where}"
    if report.structure:
        said = printable(f"{structure(report)[0]}; {said}")
    rules = ", ".join(dict.fromkeys(t.rule for t in compared if t.rule))
    more = [f"mode {report.mode}", f"by {rules}"]
    if report.left_out:
        more.append(f"without {plural(report.left_out, 'sublayer')} of the golden")
    return f"{said} ({', '.join(more)})"


def _cell(sublayer: SublayerResult) -> Cell:
    shown = stands_for(sublayer)
    error = REL_L2.said(shown.metrics if shown is not None else None)
    return Cell(sublayer.state == PASSED, used_by(sublayer), error)


def _shown(cell: Cell | None) -> tuple[str, str]:
    return ("-", "-") if cell is None else (f"{_mark(cell.ok).markup} {cell.used}", cell.error)


def _taps(labels: Sequence[str], found: Sequence[SublayerResult | None]) -> str:
    """The tensor that is wrong first; which run's it is, where the runs disagree."""
    pairs = zip(labels, found, strict=True)
    wrong = {label: s.first_wrong for label, s in pairs if s is not None and s.first_wrong}
    if len(set(wrong.values())) <= 1:
        return next(iter(wrong.values()), "")
    return ", ".join(f"{label} {tap}" for label, tap in wrong.items())


def _mark(ok: bool) -> Text:
    return Text("✓", "green") if ok else Text("✗", "bold red")
