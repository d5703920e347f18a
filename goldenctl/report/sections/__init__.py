"""The sections of reports: each is one function, from a report to blocks.

Every output shows the same list, in this order.
"""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.report.blocks import Section
from goldenctl.report.sections import (
    checks,
    course,
    culprits,
    selftest,
    source,
    tensors,
    verdict,
)
from goldenctl.report.sections.choice import ALL, Choice

_OF_RUNS = (
    verdict.proved, culprits.culprits, tensors.cases, course.depth, tensors.wrong,
    tensors.sublayers, culprits.crashes, tensors.every, course.determinism, course.times,
)  # fmt: skip


def sections(report: Report, choice: Choice = ALL) -> list[Section]:
    """Return what a report is made of; a section without blocks has nothing to show."""
    makers = _OF_RUNS if report.selftest is None else selftest.SECTIONS
    every = (checks.checks, *makers, source.provenance, source.commands)
    return [make(report, choice) for make in every]
