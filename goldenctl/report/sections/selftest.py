"""What a selftest counted."""

from __future__ import annotations

from goldenctl.records.report import Report
from goldenctl.records.trials import VISIBLE, Selftest
from goldenctl.records.units import plural
from goldenctl.report.blocks import Block, Fold, Line, Lines, Section, Span, numbers, table
from goldenctl.report.sections.choice import Choice

_SHOWN, _MOST = 10, 200


def rates(report: Report, _choice: Choice) -> Section:
    """Return what share of known bugs was caught, located and named, and the false alarms."""
    result = _of(report)
    rows = [
        (label, f"{good:,} of {total:,}", _share(good, total, least), least)
        for label, good, total, least in result.rates()
    ]
    hidden = (
        f"counted apart: {plural(result.hidden, 'fault')} that this input does not show (they move "
        f"no row by {VISIBLE:g} times its rounding)"
    )
    lines = Lines((Line(hidden, indent=2),) if result.hidden else ())
    hint = "Known bugs were put into a real backend, one op at a time; correct alternatives too."
    counted = table(("", *numbers("count", "share"), "must be"), rows)
    return Section("rates", "Rates", (lines, counted), hint)


def _share(good: int, total: int, least: str) -> str:
    return f"{good / total:.1%}" if total and least != "none" else ""


def complaints(report: Report, _choice: Choice) -> Section:
    """Return what went wrong, the first in full sight."""
    lines = [Line(Span(said, "bad"), indent=2) for said in _of(report).complaints()]
    more = len(lines) - _SHOWN
    blocks: list[Block] = [Lines(tuple(lines[:_SHOWN]))] if lines else []
    if more > 0:
        rest = lines[_SHOWN:_MOST]
        left = f"; the first {_MOST} are listed" if len(lines) > _MOST else ""
        blocks.append(Lines((Line(f"... and {more:,} more{left}", indent=2),)))
        blocks.append(Fold("What else went wrong", (Lines(tuple(rest)),)))
    return Section("complaints", "What went wrong", tuple(blocks))


def ops(report: Report, _choice: Choice) -> Section:
    """Return the faults by the op that they were put into."""
    rows = [(op, *map(str, counts)) for op, *counts in _of(report).by_op()]
    made = table(("op", *numbers("visible faults", "caught", "named")), rows)
    return Section("ops", "By op", (made,))


def gates(report: Report, _choice: Choice) -> Section:
    """Return what other tools' default rules make of the same outputs."""
    rows = [
        (gate, f"{caught:.1%}", f"{alarms} of {total}")
        for gate, caught, alarms, total in _of(report).by_gate()
    ]
    hint = "The same outputs under other tools' default rules."
    made = table(("gate", *numbers("caught", "false alarms")), rows)
    return Section("gates", "Beside the gates of the field", (made,), hint)


def faults(report: Report, _choice: Choice) -> Section:
    """Return what was caught of each fault."""
    rows = [(fault, op, *map(str, counts)) for fault, op, *counts in _of(report).by_fault()]
    counted = numbers("trials", "visible", "caught", "named", "not shown, but caught")
    hint = f"A fault is visible when it moves some row by {VISIBLE:g} times what rounding does."
    made = Fold("Every fault", (table(("fault", "op", *counted), rows),), open=True)
    return Section("faults", "By fault", (made,), hint)


def _of(report: Report) -> Selftest:
    assert report.selftest is not None
    return report.selftest


SECTIONS = (rates, complaints, ops, gates, faults)
