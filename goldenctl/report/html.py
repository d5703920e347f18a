"""Owns a report as one HTML page: offline, without any reference to elsewhere.

Every text of a file is escaped on its way in; a content security policy allows the page's own
script and styles by their digests and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib import resources

from goldenctl import __version__
from goldenctl.diff.report import Report
from goldenctl.report import html_course, html_selftest, html_tensors
from goldenctl.report.answers import Answers, answers
from goldenctl.report.commands import commands
from goldenctl.report.html_parts import Section, escape, facts
from goldenctl.report.palette import figure_css, variables
from goldenctl.report.provenance import both_sides
from goldenctl.report.words import rules

_ANSWERS = (("where", "Where first"), ("kind", "What kind of bug"), ("sure", "How sure"))


def render(report: Report) -> str:
    """Return the page. For a 28-layer model with all taps it is below 1 MiB."""
    said = answers(report)
    sections = [section for section in _sections(report) if section.content]
    style, script = _style(), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n',
            f"<title>{escape(_title(report, said))}</title>\n<style>{style}</style>\n</head>\n",
            f'<body class="{"pass" if said.ok else "fail"}">\n',
            '<a class="skip" href="#main">Skip to the report</a>\n',
            *_header(report, said, sections),
            '<main id="main">\n',
            *(section.html() for section in sections),
            f"</main>\n<footer>{escape(_foot(report))}</footer>\n",
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _asset(name: str) -> str:
    return resources.files("goldenctl.report").joinpath("page", name).read_text(encoding="utf-8")


def _style() -> str:
    light, dark = variables(dark=False), variables(dark=True)
    themes = (
        f":root{{color-scheme:light;{light}}}"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{"
        f"color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
    )
    return themes + _asset("page.css") + figure_css()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _title(report: Report, said: Answers) -> str:
    return f"{'PASS' if said.ok else 'FAIL'}: goldenctl {report.command}"


def _foot(report: Report) -> str:
    run = f", run {report.run.path}" if report.run.path else ""
    return f"goldenctl {__version__} {report.command}; golden {report.golden.path}{run}"


def _header(report: Report, said: Answers, sections: list[Section]) -> Iterator[str]:
    yield "<header>\n"
    yield f'<div class="top"><span><b>goldenctl</b> {escape(report.command)}</span></div>\n'
    if report.simulated:
        yield '<p class="banner">Simulated: no engine computed these outputs</p>\n'
    if report.faults:
        named = escape(", ".join(report.faults))
        yield f'<p class="banner">Injected on purpose: <code>{named}</code></p>\n'
    if report.differs:
        listed = escape("; ".join(report.differs))
        yield f'<p class="banner">The two goldens also differ in: {listed}</p>\n'
    mark, word = ("✓", "Pass") if said.ok else ("✗", "Fail")
    verdict = f'<span class="word"><span aria-hidden="true">{mark}</span>{word}</span>'
    yield f"<h1>{verdict}<span>{escape(said.verdict)}</span></h1>\n"
    told = [(label, getattr(said, name)) for name, label in _ANSWERS]
    if any(text for _, text in told):
        yield '<dl class="answers">'
        for label, text in told:
            if text:
                yield f"<dt>{label}</dt><dd>{escape(text)}</dd>"
        yield "</dl>\n"
    links = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in sections)
    yield f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n'


def _sections(report: Report) -> Iterator[Section]:
    if report.selftest is not None:
        yield from html_selftest.sections(report.selftest)
    else:
        yield html_tensors.checks(report)
        yield html_tensors.cases(report)
        yield html_tensors.culprits(report)
        yield html_tensors.maps(report)
        yield html_course.along_depth(report)
        yield html_tensors.pictures(report)
        yield html_course.times(report)
        yield html_course.determinism(report)
    yield _provenance(report)
    yield _commands(report)
    yield html_tensors.every_tensor(report)


def _provenance(report: Report) -> Section:
    sides = []
    for title, pairs in both_sides(report):
        sides.append(f"<div><h3>{escape(title)}</h3>{facts(pairs)}</div>")
    hint = f"Judged by {rules(report)}; mode {report.mode}." if report.selftest is None else ""
    return Section("provenance", "Provenance", hint, f'<div class="two">{"".join(sides)}</div>')


def _commands(report: Report) -> Section:
    parts = [
        f'<div class="command"><p>{escape(command.purpose)}</p>'
        f'<div class="line"><pre tabindex="0">{escape(command.text)}</pre></div></div>'
        for command in commands(report)
    ]
    return Section("commands", "Commands", "", "".join(parts))
