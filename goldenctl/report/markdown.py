"""A report as Markdown, as GitHub shows it in a step summary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.records.report import Report
from goldenctl.records.uncompared import silence
from goldenctl.records.words import banners
from goldenctl.report.answers import Answers, answers
from goldenctl.report.render_markdown import escape, rendered
from goldenctl.report.sections import matrix, sections
from goldenctl.report.sections.verdict import remarks, warnings

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT_BYTES = 1 << 20
"""GitHub refuses a larger step summary altogether."""


def render(report: Report, *, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return the Markdown, at most ``limit_bytes`` long: tables end early where it must be."""
    parts = [*_head(report, answers(report)), *rendered(sections(report))]
    return _capped(parts, limit_bytes)


def render_matrix(reports: Sequence[Report], *, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return the Markdown of several reports side by side."""
    return _capped(list(_matrix(reports)), limit_bytes)


def append_summary(reports: Sequence[Report], environment: Mapping[str, str] = os.environ) -> None:
    """Append the reports to GitHub's step summary, when the environment names its file.

    Nothing is written where the file is full. Raises UsageError when it cannot be written.
    """
    named = environment.get(SUMMARY_VARIABLE)
    if not named:
        return
    path = Path(named)
    try:
        size = path.stat().st_size if path.exists() else 0
        limit = max(LIMIT_BYTES - size - 1, 0)
        text = (
            render(reports[0], limit_bytes=limit)
            if len(reports) == 1
            else render_matrix(reports, limit_bytes=limit)
        )
        if text:
            with path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
    except OSError as error:
        message = f"${SUMMARY_VARIABLE}: {path} cannot be written: {error.strerror}"
        raise UsageError(message) from error


def _capped(lines: list[str], limit_bytes: int) -> str:
    """Join whole lines as long as they fit; close what is open and say that there was more."""
    more = "\n</details>\n\n*The rest did not fit.*\n"
    room = limit_bytes - len(more.encode())
    kept: list[str] = []
    used = 0
    for number, line in enumerate(lines):
        used += len(line.encode()) + 1
        if used > room:
            opened = sum("<details>" in x for x in kept) - sum("</details>" in x for x in kept)
            end = more if opened else more.replace("</details>\n\n", "")
            return "\n".join(kept) + end if number else ""
        kept.append(line)
    return "\n".join(kept)


def _head(report: Report, said: Answers) -> Iterator[str]:
    mark = "✅ PASS" if said.ok else "❌ FAIL"
    title = f"### {mark}: goldenctl {escape(report.command)}"
    silent = silence(report)
    yield f"{title}; {escape(silent)}\n" if said.ok and silent else f"{title}\n"
    for banner in banners(report):
        name, _, text = banner.partition(": ")
        yield f"> **{name}**: {escape(text)}\n"
    yield f"- {escape(said.verdict)}"
    yield from (f"- **{label}:** {escape(text)}" for label, text in said.told)
    yield from (f"- {escape(line)}" for line in warnings(report))
    if report.sublayers:
        yield from (f"- {escape(line)}" for line in remarks(report))
    yield ""


def _matrix(reports: Sequence[Report]) -> Iterator[str]:
    mark = "✅ PASS" if all(report.ok for report in reports) else "❌ FAIL"
    said = matrix.verdict(reports)
    yield f"### {mark}: goldenctl {escape(reports[0].command)}, {escape(said)}\n"
    yield from rendered(matrix.side_by_side(reports))
