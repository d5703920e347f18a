"""The page's sections on several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from goldenctl.records.report import Report
from goldenctl.records.words import labels_of
from goldenctl.report.commands import compare_all
from goldenctl.report.html_parts import Section, command, escape, facts, mark, rows
from goldenctl.report.matrix import HINT, Cell, lines, matrix_rows
from goldenctl.report.provenance import both_sides


def sections(reports: Sequence[Report]) -> Iterator[Section]:
    """Yield what the page is made of."""
    yield Section("runs", "Runs", "", _runs(reports))
    hint = f"The part of its tolerance that each sublayer uses; below it, {HINT}."
    yield Section("sublayers", "Sublayers", hint, _sublayers(reports))
    yield Section("provenance", "Provenance", "", _provenance(reports))
    again = [command(each) for each in compare_all(reports)]
    yield Section("commands", "Commands", "", "".join(again))


def _runs(reports: Sequence[Report]) -> str:
    cells = []
    for line in lines(reports):
        warned = "".join(f"<br><b>{escape(banner)}</b>" for banner in line.banners)
        cells.append([mark(line.ok), escape(line.label), escape(line.said) + warned])
    return rows(("", "run", "verdict"), cells)


def _sublayers(reports: Sequence[Report]) -> str:
    labels = labels_of(reports)
    cells = [
        [
            mark(row.ok),
            escape(f"{row.place} ({row.taps})" if row.taps else row.place),
            *(_cell(cell) for cell in row.cells),
        ]
        for row in matrix_rows(reports)
    ]
    numbers = range(2, 2 + len(labels))
    return rows(("", "sublayer", *labels), cells, numbers=numbers)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return '<span class="soft">not run</span>'
    return f'{mark(cell.ok)} {cell.used}<br><span class="soft">{cell.error}</span>'


def _provenance(reports: Sequence[Report]) -> str:
    golden = both_sides(reports[0])[0]
    sides = [golden, *(both_sides(report)[1] for report in reports)]
    titles = ["Golden", *(f"Run {label}" for label in labels_of(reports))]
    shown = (
        f"<div><h3>{escape(title)}</h3>{facts(pairs)}</div>"
        for title, (_, pairs) in zip(titles, sides, strict=True)
    )
    return f'<div class="two">{"".join(shown)}</div>'
