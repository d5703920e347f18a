"""A report as Markdown, as GitHub shows it in a step summary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from goldenctl.errors import UsageError, printable
from goldenctl.records.report import NEUTRAL, Report, SublayerResult, TensorResult
from goldenctl.records.uncompared import silence
from goldenctl.records.words import (
    Places,
    banners,
    dtypes,
    duration,
    left_out,
    not_judged,
    ratio,
    reasons_of,
    rules,
    sides_of,
    structure,
    used,
    used_by,
)
from goldenctl.report.answers import Answers, answers
from goldenctl.report.measures import COSINE, REL_L2
from goldenctl.report.notes import note_lines
from goldenctl.report.render_markdown import rendered
from goldenctl.report.sections import checks, course, matrix, sections, source
from goldenctl.report.sections.choice import ALL
from goldenctl.report.structure import by_themselves
from goldenctl.report.timing import step_lines

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT_BYTES = 1 << 20
"""GitHub refuses a larger step summary altogether."""
_MOST_TENSORS = 50


def render(report: Report, *, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return the Markdown, at most ``limit_bytes`` long: tables end early where it must be."""
    parts = [*_head(report, answers(report))]
    if report.selftest is not None:
        parts += rendered(sections(report))
    else:
        parts += _body(report)
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
    title = f"### {mark}: goldenctl {_text(report.command)}"
    silent = silence(report)
    yield f"{title}; {_text(silent)}\n" if said.ok and silent else f"{title}\n"
    for banner in banners(report):
        name, _, text = banner.partition(": ")
        yield f"> **{name}**: {_text(text)}\n"
    for label, text in (
        ("", said.verdict),
        ("First", said.where),
        ("Kind", said.kind),
        ("How sure", said.sure),
    ):
        if text:
            yield f"- **{label}:** {_text(text)}" if label else f"- {_text(text)}"
    for found in structure(report):
        details = f" ({_text('; '.join(found.details))})" if found.details else ""
        yield f"- ❌ **{_text(str(found))}**{details}"
    if report.trace is not None:
        for line in filter(None, (by_themselves(report), *report.trace.lines())):
            yield f"- {_text(line)}"
    lines = (not_judged(report), *note_lines(report), *step_lines(report))
    for line in filter(None, lines):
        yield f"- {_text(line.strip())}"
    yield from rendered([course.determinism(report, ALL)])
    yield ""


def _matrix(reports: Sequence[Report]) -> Iterator[str]:
    mark = "✅ PASS" if all(report.ok for report in reports) else "❌ FAIL"
    said = matrix.verdict(reports)
    yield f"### {mark}: goldenctl {_text(reports[0].command)}, {_text(said)}\n"
    yield from rendered(matrix.side_by_side(reports))


def _body(report: Report) -> Iterator[str]:
    places = Places(report)
    yield from rendered([checks.checks(report, ALL)])
    if not report.sublayers:
        return
    wrong = [t for t in report.compared if not t.ok]
    if wrong:
        yield from _table(
            ("tensor", "state", "used", REL_L2.title, COSINE.title, "worst at"),
            [_wrong(places, tensor) for tensor in wrong[:_MOST_TENSORS]],
        )
        if len(wrong) > _MOST_TENSORS:
            yield f"... and {len(wrong) - _MOST_TENSORS} more\n"
    yield from _reasons(report)
    yield "<details><summary>All sublayers</summary>\n"
    yield from _table(
        ("", "sublayer", "used", *sides_of(report), "ratio"),
        [_sublayer(places, sublayer) for sublayer in report.sublayers],
    )
    yield "</details>\n"
    stated = f"; {dtypes(report)}" if dtypes(report) else ""
    yield f"Judged by: {_text(rules(report))}; mode {_text(report.mode)}{_text(stated)}."
    if left_out(report):
        yield f"{left_out(report).capitalize()}.\n"
    yield from rendered([source.provenance(report, ALL), source.commands(report, ALL)])


def _reasons(report: Report) -> Iterator[str]:
    reasons = reasons_of(report)
    if reasons:
        yield "<details><summary>What each case is there to show</summary>\n"
        yield from _table(("case", "why"), [[_code(n), _text(why)] for n, why in reasons.items()])
        yield "</details>\n"


def _wrong(places: Places, tensor: TensorResult) -> list[str]:
    state = _text(tensor.state)
    return [
        _code(places.tensor(tensor.name)),
        state,
        used(tensor),
        REL_L2.said(tensor.metrics),
        COSINE.said(tensor.metrics),
        _text(tensor.worst or tensor.message),
    ]


def _sublayer(places: Places, sublayer: SublayerResult) -> list[str]:
    neutral = sublayer.tensors and all(t.state in NEUTRAL for t in sublayer.tensors)
    mark = "✅" if sublayer.state == "passed" else "❌"
    return [
        "➖" if neutral else mark,
        _code(places.sublayer(sublayer.name)),
        used_by(sublayer),
        duration(sublayer.expected_ns),
        duration(sublayer.actual_ns),
        ratio(sublayer.actual_ns, sublayer.expected_ns),
    ]


def _table(titles: tuple[str, ...], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _text(text: str) -> str:
    """Text that neither Markdown nor HTML takes for markup, in one table cell."""
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in printable(text))


_MARKUP = set("&<>\"'|`*_~[]#!@\\:")


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"
