"""Several reports of one golden side by side: dtypes, backends or versions in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from goldenctl.report.blocks import Cell, Column, Line, Lines, Mark, Section, Span, Words, table
from goldenctl.report.commands import compare_all
from goldenctl.report.measures import REL_L2
from goldenctl.report.sections.source import beside, listed

_HINT = "The part of its tolerance that each sublayer uses."
_CAPTION = "numbers are of the tensor in parentheses, the first wrong, else of the worst one"


def side_by_side(reports: Sequence[Report]) -> list[Section]:
    """Return one line on each run, then every sublayer with columns for each run."""
    named = list(zip(labels_of(reports), reports, strict=True))
    lines = [
        Line(
            (Mark.of(report.ok), " ", Span(label, "strong"), f": {_said(report)}"),
            tuple(Span(banner, "warn") for banner in banners(report)),
        )
        for label, report in named
    ]
    columns = [
        column
        for label, _ in named
        for column in (Column(label, right=True), Column(REL_L2.title, right=True, spare=1))
    ]
    made = table(("", "sublayer", *columns), _rows(reports), _CAPTION)
    files = [(f"Run {label}", report.run) for label, report in named]
    return [
        Section("runs", "Runs", (Lines(tuple(lines)),)),
        Section("sublayers", "All sublayers", (made,), _HINT, folded=True),
        beside([("Golden", reports[0].golden), *files]),
        listed(compare_all(reports)),
    ]


def _rows(reports: Sequence[Report]) -> Iterator[tuple[Cell | Words, ...]]:
    """Yield every sublayer that any of the runs has."""
    labels, places = labels_of(reports), Places(reports[0])
    columns = [{sublayer.name: sublayer for sublayer in r.sublayers} for r in reports]
    for name in dict.fromkeys(name for column in columns for name in column):
        found = [column.get(name) for column in columns]
        ok = all(sublayer is None or sublayer.state == PASSED for sublayer in found)
        where = Cell(Span(places.sublayer(name), "code"), _taps(labels, found))
        cells = [cell for sublayer in found for cell in _cells(sublayer)]
        yield Mark.of(ok), where, *cells


def _cells(sublayer: SublayerResult | None) -> tuple[Words, Words]:
    """The part of its tolerance that one run's sublayer uses, and its relative L2 error."""
    if sublayer is None:
        return Span("not run", "soft"), ""
    shown = stands_for(sublayer)
    error = REL_L2.said(shown.metrics if shown is not None else None)
    return (Mark.of(sublayer.state == PASSED), f" {used_by(sublayer)}"), Span(error, "soft")


def verdict(reports: Sequence[Report]) -> str:
    """Say how many of the runs are right, and of which that is said in part only."""
    good = sum(report.ok for report in reports)
    said = f"{good} of {plural(len(reports), 'run')} within tolerance"
    pairs = zip(labels_of(reports), reports, strict=True)
    silent = [label for label, report in pairs if report.ok and not_compared(report)]
    return f"{said}; not every output was compared of {some(silent)}" if silent else said


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
        where = Places(report).tensor(first.name)
        said = f"{wrong} of {len(compared)} tensors are wrong, first {where}"
    if report.structure:
        said = f"{structure(report)[0]}; {said}"
    rules = ", ".join(dict.fromkeys(t.rule for t in compared if t.rule))
    more = [f"mode {report.mode}", f"by {rules}"]
    if report.left_out:
        more.append(f"without {plural(report.left_out, 'sublayer')} of the golden")
    return f"{said} ({', '.join(more)})"


def _taps(labels: Sequence[str], found: Sequence[SublayerResult | None]) -> str:
    """The tensor that is wrong first; which run's it is, where the runs disagree."""
    pairs = zip(labels, found, strict=True)
    wrong = {label: s.first_wrong for label, s in pairs if s is not None and s.first_wrong}
    if len(set(wrong.values())) <= 1:
        return next(iter(wrong.values()), "")
    return ", ".join(f"{label} {tap}" for label, tap in wrong.items())
