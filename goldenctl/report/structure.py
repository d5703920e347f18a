"""What a trace proves, in words: the one place that every renderer takes it from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from goldenctl.diff.report import Report, TensorResult
from goldenctl.diff.structure import Finding
from goldenctl.golden.schema import short_name
from goldenctl.report.units import plural
from goldenctl.report.words import groups_of, some

_LAYER = re.compile(r"layers\.\d+\.|layer \d+")


@dataclass(frozen=True)
class Said:
    """One thing that is wrong, in all layers that it is wrong in: a line, and its details."""

    text: str
    details: tuple[str, ...]
    first: Finding


def structure(report: Report) -> list[Said]:
    """Return what an engine does otherwise than the model, the first in execution order first;
    what is the same in several layers once."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in report.structure:
        key = (_LAYER.sub("", f"{finding.place}."), finding.op, _LAYER.sub("", finding.text))
        alike.setdefault(key, []).append(finding)
    steps = len(groups_of(report))
    return [_said(findings, steps) for findings in alike.values()]


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
    said = f"{len(judged) - len(culprits)} of {plural(len(judged), 'op')} right by themselves"
    if victims:
        said += f"; {plural(victims, 'wrong one')} of these only {_inherit(victims)} an error"
    return said


def _op_of(tensor: TensorResult) -> tuple[str, str]:
    return short_name(tensor.sublayer), tensor.tap


def _inherit(count: int) -> str:
    return "inherits" if count == 1 else "inherit"


def _said(findings: list[Finding], steps: int) -> Said:
    first = findings[0]
    details = []
    if len(findings) > 1:
        others = some([finding.place for finding in findings[1:]], 4)
        details.append(f"also in {others}")
    seen = dict.fromkeys(step for finding in findings for step in finding.steps)
    if steps > 1 and len(seen) < steps:
        details.append(f"in {some(seen, 4)}")
    return Said(str(first), tuple(details), first)
