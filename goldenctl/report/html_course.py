"""The page's sections on the course of a run: error along depth, times, determinism."""

from __future__ import annotations

import math

from goldenctl.records.report import Report
from goldenctl.records.units import factor
from goldenctl.records.words import Places, duration, group_of, ratio, sides_of
from goldenctl.report.answers import main_group
from goldenctl.report.console_blame import graft_line
from goldenctl.report.figures import depth, op_times
from goldenctl.report.html_parts import Section, escape, figure, rows

_MOST_STEPS = 100


def along_depth(report: Report) -> Section:
    """Return how the error grows from sublayer to sublayer."""
    group = main_group(report)
    drawn = depth(report, group)
    content = [] if drawn is None else [figure(drawn, "wide")]
    hint = "How wrong each sublayer's output is, fed with the golden's input (isolated)"
    hint += " or with what came before (chained)."
    findings = report.findings
    if findings is not None and findings.graft is not None:
        line = graft_line(findings.graft, len(findings.culprits))
        content.append(f"<p>{escape(line[:1].upper() + line[1:])}.</p>")
    if findings is not None and findings.depths:
        places = Places(report)
        cells = [
            [
                escape(places.sublayer(d.name)),
                *(f"{x:.1e}" for x in (d.local, d.inherited, d.chained)),
                factor(d.amplification) if math.isfinite(d.amplification) else "-",
                escape(d.word),
            ]
            for d in findings.depths
            if group_of(d.name) == group
        ]
        titles = ("sublayer", "isolated", "inherited", "chained", "times", "part")
        content.append(
            "<details><summary>As a table</summary>"
            f"{rows(titles, cells, numbers=(1, 2, 3, 4))}</details>"
        )
    return Section("depth", "Error along depth", hint, "".join(content))


def times(report: Report) -> Section:
    """Return the times of both sides, by op and by step."""
    drawn = op_times(report)
    sides = sides_of(report)
    expected = sum(s.expected_ns for s in report.sublayers)
    actual = sum(s.actual_ns for s in report.sublayers)
    total = (
        f"All sublayers: {sides[0]} {duration(expected)}, {sides[1]} {duration(actual)}, "
        f"{ratio(actual, expected)}. Times of one run on two programs, perhaps two machines."
    )
    content = [figure(drawn, "wide")] if drawn is not None else []
    if report.steps:
        content.append(_steps(report))
    return Section("times", "Times", total if content else "", "".join(content))


def _steps(report: Report) -> str:
    cells = [
        [
            escape(step.step),
            str(step.tokens),
            duration(step.expected_ns),
            f"{step.expected_per_s:,.4g}" if step.expected_ns else "-",
            duration(step.actual_ns),
            f"{step.actual_per_s:,.4g}" if step.actual_ns else "-",
            ratio(step.actual_ns, step.expected_ns),
        ]
        for step in report.steps[:_MOST_STEPS]
    ]
    expected, actual = sides_of(report)
    titles = ("step", "tokens", expected, "tokens/s", actual, "tokens/s", "ratio")
    left = len(report.steps) - len(cells)
    more = f"<p>And {left:,} more steps.</p>" if left else ""
    return rows(titles, cells, numbers=range(1, 7)) + more
