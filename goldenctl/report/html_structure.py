"""The page's section of what a trace proves: findings first, then what was found of the golden."""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.records.words import structure
from goldenctl.report.html_parts import Section, escape, rows
from goldenctl.report.structure import by_themselves

_HINT = "Proved by what the engine's calls read: no tolerance is involved."


def section(report: Report) -> Section:
    """Return the section; it is left out of reports that are of no trace."""
    if report.trace is None:
        return Section("structure", "Structure", "", "")
    found = structure(report)
    cells = [
        (
            f"<b>{escape(said.where)}</b>",
            escape(said.first.op),
            escape(said.first.text),
            escape("; ".join(said.details)),
        )
        for said in found
    ]
    table = rows(("where", "op", "what is wrong", ""), cells) if cells else ""
    if not cells:
        table = (
            "<p>Every op that was found reads the tensors, weights and scalars of the model.</p>"
        )
    told = "".join(
        f"<li>{escape(line)}</li>"
        for line in filter(None, (by_themselves(report), *report.trace.lines()))
    )
    return Section("structure", "Structure", _HINT if found else "", f"{table}<ul>{told}</ul>")
