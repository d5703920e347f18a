"""What a trace proves, in words: the one place that every renderer takes it from."""

from __future__ import annotations

from goldenctl.places import short_name
from goldenctl.records.report import Report, TensorResult
from goldenctl.records.units import plural
from goldenctl.records.words import structure


def headline(report: Report) -> str:
    """Say how many things are wrong; empty without any."""
    found = structure(report)
    return f"{plural(len(found), 'thing')} proved wrong by what the calls read" if found else ""


def by_themselves(report: Report) -> str:
    """Say how many ops of a traced engine are wrong by themselves, and how many only inherit."""
    judged = [t for t in report.tensors if t.local is not None]
    culprits = [t for t in judged if t.part == "culprit"]
    found = {(finding.place, finding.op) for finding in report.structure}
    victims = sum(t.part == "victim" and _op_of(t) not in found for t in judged)
    if not judged:
        return ""
    said = f"{len(judged) - len(culprits):,} of {plural(len(judged), 'op')} right by themselves"
    if victims:
        verb = "inherits" if victims == 1 else "inherit"
        said += f"; {plural(victims, 'wrong one')} of these only {verb} an error"
    return said


def _op_of(tensor: TensorResult) -> tuple[str, str]:
    return short_name(tensor.sublayer), tensor.tap
