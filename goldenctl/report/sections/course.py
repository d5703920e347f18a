"""The course of a run: whether it depends on more than its inputs."""

from __future__ import annotations

from goldenctl.places import short_name
from goldenctl.records.determinism import Determinism
from goldenctl.records.report import Report
from goldenctl.records.words import groups_of
from goldenctl.report.blocks import Line, Lines, Mark, Section, Span
from goldenctl.report.sections.choice import Choice


def determinism(report: Report, _choice: Choice) -> Section:
    """Return what passes in other orders and over other memory showed."""
    found = report.determinism
    many = len(groups_of(report)) > 1
    blocks = (passes(found, many_cases=many, indent=2),) if found is not None else ()
    return Section("determinism", "Determinism", blocks)


def passes(found: Determinism, *, many_cases: bool, indent: int = 0) -> Lines:
    """Return how many passes there were and what is not the same in all."""
    count = sum(found.passes.values())
    made = ", ".join(f"{number} {kind}" for kind, number in found.passes.items())
    lines = []
    if not found.findings:
        same = f": the same bits in {count} passes ({made})"
        lines.append(Line((Mark.RIGHT, " ", Span("deterministic", "good"), same), indent=indent))
    for finding in found.findings:
        group = f"{'/'.join(finding.sublayer.split('/')[1:4:2])}: " if many_cases else ""
        where = Span(f"{group}{short_name(finding.sublayer)}.{finding.tap}", "strong")
        said = (Mark.WRONG, " ", Span(", ".join(finding.classes), "bad"), ": ", where)
        lines.append(Line(said, (finding.note,) if finding.note else (), indent))
    if found.findings:
        lines.append(Line(f"in {count} passes: {made}", indent=indent))
    if not found.poisons:
        unseen = "the backend does not take --poison, so uninitialised reads were not looked for"
        lines.append(Line(unseen, indent=indent))
    return Lines(tuple(lines))
