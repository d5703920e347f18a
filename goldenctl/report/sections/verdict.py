"""The verdict: what stands before anything else."""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.report.answers import answers
from goldenctl.report.blocks import Line, Lines, Mark, Span


def in_short(report: Report) -> Lines:
    """Return the verdict as one line."""
    said = answers(report)
    word = Span("PASS", "good") if said.ok else Span("FAIL", "bad")
    return Lines((Line((Mark.of(said.ok), " ", word, f"  {said.verdict}")),))
