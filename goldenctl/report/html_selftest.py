"""The page's sections on a selftest."""

from __future__ import annotations

from collections.abc import Iterator

from goldenctl.records.trials import Selftest
from goldenctl.report.html_parts import Section, escape, rows
from goldenctl.report.svg import tag

_SHOWN = 200


def sections(result: Selftest) -> Iterator[Section]:
    """Yield the rates, what went wrong, and the counts by op, gate and fault."""
    yield Section("rates", "Rates", _RATES, _rates(result))
    yield Section("complaints", "What went wrong", "", _complaints(result))
    by_op = [[escape(op), *map(str, counts)] for op, *counts in result.by_op()]
    yield Section(
        "ops",
        "By op",
        "",
        rows(("op", "visible faults", "caught", "named"), by_op, numbers=(1, 2, 3)),
    )
    gates = [
        [escape(gate), f"{caught:.1%}", f"{alarms} of {total}"]
        for gate, caught, alarms, total in result.by_gate()
    ]
    yield Section(
        "gates",
        "Beside the gates of the field",
        "The same outputs under other tools' default rules.",
        rows(("gate", "caught", "false alarms"), gates, numbers=(1, 2)),
    )
    faults = [
        [escape(fault), escape(op), *map(str, counts)] for fault, op, *counts in result.by_fault()
    ]
    titles = ("fault", "op", "trials", "visible", "caught", "named", "not shown, but caught")
    yield Section(
        "faults",
        "By fault",
        "A fault is visible when it moves some row by 8 times what rounding does.",
        rows(titles, faults, numbers=(2, 3, 4, 5, 6)),
    )


_RATES = "Known bugs were put into a real backend, one op at a time; correct alternatives too."


def _rates(result: Selftest) -> str:
    cells = []
    for label, good, total, least in result.rates():
        share = f"{good / total:.1%}" if total and least != "none" else ""
        bar = ""
        if share:
            bar = _bar(good / total)
        cells.append([escape(label), f"{good:,} of {total:,}", f"{bar} {share}", escape(least)])
    return rows(("", "count", "share", "must be"), cells, numbers=(1,))


def _bar(share: float) -> str:
    whole = tag("rect", width=120.0, height=8.0, rx=4, class_="l1")
    part = tag("rect", width=120.0 * share, height=8.0, rx=4, class_="l4")
    drawn = whole + part
    return f'<svg class="fig" width="120" height="8" aria-hidden="true">{drawn}</svg>'


def _complaints(result: Selftest) -> str:
    found = result.complaints()
    items = "".join(f"<li>{escape(line)}</li>" for line in found[:_SHOWN])
    if len(found) > _SHOWN:
        items += f"<li>and {len(found) - _SHOWN} more</li>"
    return f"<ul>{items}</ul>" if items else ""
