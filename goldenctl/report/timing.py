"""The time of whole steps in words: reference and run, tokens per second, ratio."""

from __future__ import annotations

from collections.abc import Sequence

from goldenctl.records.report import Report, StepTime
from goldenctl.records.units import per_second
from goldenctl.records.words import duration, plural, ratio, sides_of


def step_lines(report: Report) -> list[str]:
    """Return a line on all prefills and one on all decode steps whose times were taken."""
    steps, names = report.steps, sides_of(report)
    prefill = [step for step in steps if not step.decodes]
    decode = [step for step in steps if step.decodes]
    return [
        _line(kind, chosen, names)
        for kind, chosen in (("prefill", prefill), ("decode", decode))
        if any(step.expected_ns or step.actual_ns for step in chosen)
    ]


def _line(kind: str, steps: Sequence[StepTime], names: tuple[str, str]) -> str:
    total = StepTime(
        step="",
        tokens=sum(step.tokens for step in steps),
        expected_ns=sum(step.expected_ns for step in steps),
        actual_ns=sum(step.actual_ns for step in steps),
    )
    sides = [
        f"{side} {duration(ns)} ({per_second(rate)})"
        for side, ns, rate in (
            (names[0], total.expected_ns, total.expected_per_s),
            (names[1], total.actual_ns, total.actual_per_s),
        )
        if ns
    ]
    times = ratio(total.actual_ns, total.expected_ns)
    both = f", {times}" if times != "-" else ""
    return f"  time of {kind}, {plural(total.tokens, 'token')}: {', '.join(sides)}{both}"
