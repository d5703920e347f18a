"""The steps of a check of golden sets."""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.records.words import percent
from goldenctl.report.blocks import Column, Line, Lines, Mark, Section, Span, table
from goldenctl.report.sections.choice import Choice

_HINT = "What follows is for the first wrong step, or else the one nearest to its limit."


def checks(report: Report, _choice: Choice) -> Section:
    """Return one line for each step, below them what is wrong."""
    rows = [
        (
            Mark.of(step.ok),
            Span(step.golden, "strong"),
            step.step,
            step.judged_by,
            percent(step.share) if step.share is not None else "",
            step.said if step.ok else step.state,
        )
        for step in report.checks
    ]
    wrong = [step for step in report.checks if not step.ok]
    lines = [
        Line((Mark.WRONG, " ", Span(f"{step.golden} {step.step}", "bad"), f": {step.said}"))
        for step in wrong
    ]
    titles = ("", "golden", "step", "judged by", Column("used", right=True), "")
    blocks = (table(titles, rows), *([Lines(tuple(lines))] if lines else ()))
    hint = _HINT if report.sublayers else ""
    return Section("checks", "Golden sets", blocks if rows else (), hint)


SECTIONS = (checks,)
