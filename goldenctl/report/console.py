"""A report on the terminal: the verdict, where first, then the sections."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType

from goldenctl.records.report import Report
from goldenctl.records.words import Places, banners, not_judged
from goldenctl.report.answers import wrong_of
from goldenctl.report.blocks import Block, Heading, Line, Lines, Mark, Section, Span
from goldenctl.report.render_console import make_console, rendered
from goldenctl.report.sections import sections
from goldenctl.report.sections.choice import BRIEF, Choice
from goldenctl.report.sections.verdict import first_wrong, remarks, verdict, warnings


def print_report(report: Report, choice: Choice = BRIEF, console: Console | None = None) -> None:
    """Print what is chosen of a report. On a terminal what is longer than the screen ends in the
    verdict once more."""
    console = console or make_console()
    shown = view(report, choice)
    console.print(shown, crop=False)
    first = report.first_wrong
    scrolled = console.is_terminal and len(console.render_lines(shown)) >= console.height
    if scrolled and first is not None and report.command != "check":
        where = Span(Places(report).tensor(first.name), "strong")
        said = (Mark.WRONG, " ", Span("FAIL", "bad"), f"  {wrong_of(report)}, first ", where)
        console.print(*rendered([Lines((Line(said),))]), crop=False)


def view(report: Report, choice: Choice) -> RenderableType:
    """Return the report as something rich can print, at 80 columns or more, with ``crop=False``."""
    return Group(*rendered(_parts(report, choice), verbose=not choice.brief))


def _parts(report: Report, choice: Choice) -> Iterator[Block | Section]:
    """What a check found has the verdict below it, what a trace proves comes before any number."""
    made = sections(report, choice)
    if report.selftest is not None:
        yield Lines((verdict(report),))
        yield from made
        return
    checked, structure, *rest = made
    if report.checks:
        yield from (checked, Lines((verdict(report),)))
        if report.command == "check" and choice.brief:
            return
        yield Heading(checked.hint)
    yield Lines(tuple(Line(Span(banner, "warn")) for banner in banners(report)))
    yield structure
    if report.findings is not None and not report.culprits:  # that is the verdict
        yield rest.pop(0)
    yield Lines(tuple(_head(report)))
    yield from rest


def _head(report: Report) -> Iterator[Line]:
    if not report.checks and (report.findings is None or report.culprits):
        yield verdict(report)
    if report.findings is None:
        yield from (Line(said, indent=2) for said in first_wrong(report))
    told = warnings(report) if report.findings is None else [not_judged(report)]
    yield from (Line(Span(said, "warn"), indent=2) for said in told if said)
    if report.findings is None:
        yield from (Line(said, indent=2) for said in remarks(report))
