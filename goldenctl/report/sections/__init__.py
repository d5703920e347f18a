"""The sections of reports: each is one function, from a report to blocks.

Every output shows the same list, in this order.
"""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.report.blocks import Section
from goldenctl.report.sections import checks, course, selftest, source
from goldenctl.report.sections.choice import ALL, Choice

_OF_RUNS = (checks.checks, course.determinism)


def sections(report: Report, choice: Choice = ALL) -> list[Section]:
    """Return what a report is made of, without sections that have nothing to show."""
    makers = _OF_RUNS if report.selftest is None else selftest.SECTIONS
    makers = (*makers, source.provenance, source.commands)
    return [made for made in (make(report, choice) for make in makers) if made.blocks]
