"""A report as one HTML page that loads nothing from elsewhere.

Every text of a file is escaped on its way in; a content security policy allows the page's own
script and styles by their digests and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from goldenctl import __version__
from goldenctl.records.report import Report
from goldenctl.records.words import banners
from goldenctl.report import html_modules, html_tensors
from goldenctl.report.answers import Answers, answers
from goldenctl.report.blocks import Line, Lines
from goldenctl.report.palette import figure_css, variables
from goldenctl.report.render_html import Landmark, blocks, escape, section
from goldenctl.report.sections import matrix, sections
from goldenctl.report.sections.verdict import remarks, warnings


def render(report: Report) -> str:
    """Return the page. For a 28-layer model with all taps it is below 1 MiB."""
    said = answers(report)
    parts = [part for part in _sections(report) if part.content]
    return _page(report.command, said.ok, _header(report, said), parts, _foot(report))


def render_matrix(reports: Sequence[Report]) -> str:
    """Return the page of several reports side by side."""
    title, ok = reports[0].command, all(report.ok for report in reports)
    header = _verdict(ok, matrix.verdict(reports))
    parts = list(map(section, matrix.side_by_side(reports)))
    foot = f"goldenctl {__version__} {title}; golden {reports[0].golden.path}"
    return _page(title, ok, header, parts, foot)


def _page(title: str, ok: bool, header: Iterable[str], parts: Sequence[Landmark], foot: str) -> str:
    links = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in parts)
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
            f"<title>{'PASS' if ok else 'FAIL'}: goldenctl {escape(title)}</title>\n",
            f"<style>{style}</style>\n</head>\n",
            f'<body class="{"pass" if ok else "fail"}">\n',
            '<a class="skip" href="#main">Skip to the report</a>\n<header>\n',
            f'<div class="top"><span><b>goldenctl</b> {escape(title)}</span></div>\n',
            *header,
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n<main id="main">\n',
            *(part.html() for part in parts),
            f"</main>\n<footer>{escape(foot)}</footer>\n",
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


def _foot(report: Report) -> str:
    run = f", run {report.run.path}" if report.run.path else ""
    golden = f"; golden {report.golden.path}" if report.golden.path else ""
    return f"goldenctl {__version__} {report.command}{golden}{run}"


def _header(report: Report, said: Answers) -> Iterator[str]:
    for banner in banners(report):
        yield _banner(banner)
    yield _verdict(said.ok, said.verdict)
    for warning in warnings(report):
        yield _banner(f"{warning[:1].upper()}{warning[1:]}")
    if said.told:
        yield '<dl class="answers">'
        yield from (f"<dt>{escape(asked)}</dt><dd>{escape(text)}</dd>" for asked, text in said.told)
        yield "</dl>\n"
    if report.sublayers:
        yield f'<div class="hint">{blocks([Lines(tuple(map(Line, remarks(report))))])}</div>\n'


def _banner(said: str) -> str:
    return f'<p class="banner">{escape(said)}</p>\n'


def _verdict(ok: bool, said: str) -> str:
    mark, word = ("✓", "Pass") if ok else ("✗", "Fail")
    verdict = f'<span class="word"><span aria-hidden="true">{mark}</span>{word}</span>'
    return f"<h1>{verdict}<span>{escape(said)}</span></h1>\n"


def _sections(report: Report) -> Iterator[Landmark]:
    """The sections of every report, and among them what only a page can show."""
    for made in sections(report):
        if made.id == "depth":
            modules = html_modules.of_modules(report)
            yield html_modules.section(report) if modules else html_tensors.maps(report)
        if made.id == "determinism":
            yield html_tensors.pictures(report)
        yield section(made)
    yield html_tensors.every_tensor(report)
