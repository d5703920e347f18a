"""The sections of reports: each is one function, from a report to blocks.

Every output shows the same list: the modules in this order, of each its ``SECTIONS``.
"""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.report.blocks import Section
from goldenctl.report.sections import checks, course, culprits, selftest, source, tensors, verdict
from goldenctl.report.sections.choice import ALL, Choice

_OF_RUNS = (verdict, culprits, tensors, course)


def sections(report: Report, choice: Choice = ALL) -> list[Section]:
    """Return what a report is made of; a section without blocks has nothing to show."""
    parts = _OF_RUNS if report.selftest is None else (selftest,)
    every = (checks, *parts, source)
    return [make(report, choice) for part in every for make in part.SECTIONS]
