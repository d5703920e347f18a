"""The figures of a report as files: which there are, as SVG, and as PNG through resvg."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from goldenctl.errors import MissingError
from goldenctl.records.report import Report
from goldenctl.records.words import Places, banners
from goldenctl.report import figures
from goldenctl.report.answers import main_group
from goldenctl.report.figure_map import layer_map
from goldenctl.report.palette import paper, resolved_css
from goldenctl.report.svg import Figure, label

_OF_TENSORS = (figures.strips, figures.histogram, figures.quantiles, figures.scatter)
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
_FONTS = ("*.ttf", "*.otf", "*.ttc")


@dataclass(frozen=True)
class Drawn:
    """A figure, the stem of its file's name (never made of a tensor's), and what it shows."""

    stem: str
    shows: str
    figure: Figure


def drawn(report: Report) -> Iterator[Drawn]:
    """Yield every figure that a report has: of the whole, then of each of the worst tensors."""
    for each in _drawn(report):
        yield replace(each, figure=_marked(each.figure, "; ".join(banners(report))))


def _marked(figure: Figure, banner: str) -> Figure:
    """Say in a figure, which may be shown alone, that no engine or a known bug is behind it."""
    if not banner:
        return figure
    line = label(0, -2, banner, "strong")
    return replace(figure, title=f"{banner}. {figure.title}", body=line + figure.body)


def _drawn(report: Report) -> Iterator[Drawn]:
    if not report.sublayers:
        return
    group = main_group(report)
    for whole in (layer_map(report, group), figures.depth(report, group), figures.op_times(report)):
        if whole is not None:
            yield Drawn(whole.name, whole.title, whole)
    places = Places(report)
    for number, picture in enumerate(report.pictures, 1):
        for draw in _OF_TENSORS:
            made = draw(picture)
            if made is not None:
                shows = f"{made.title}: {places.tensor(picture.name)}"
                yield Drawn(f"worst-{number}-{made.name}", shows, made)


def svg(figure: Figure, *, dark: bool = False) -> str:
    """Return a figure as a file of its own, with a margin and the colours of one theme."""
    alone = figure.svg(css=resolved_css(dark), background=paper(dark), margin=12)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{alone}\n'


def check_png() -> None:
    """Raise MissingError without the resvg-py package, or without any font for the labels."""
    if importlib.util.find_spec("resvg_py") is None:
        message = "PNG: the resvg-py package is not installed"
        raise MissingError(message, hint="run: pip install 'goldenctl[plot]', or write SVG")
    if sys.platform == "linux" and not _has_fonts():
        message = "PNG: this machine has no fonts, so labels would be missing"
        raise MissingError(message, hint="run: apt-get install fonts-dejavu-core, or write SVG")


def png(text: str, *, zoom: float) -> bytes:
    """Return an SVG as PNG, ``zoom`` pixels to a unit; ``check_png`` says whether it can be."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=text, zoom=zoom))


def _has_fonts() -> bool:
    folders = [Path(folder).expanduser() for folder in _FONT_FOLDERS]
    return any(next(folder.rglob(kind), None) for folder in folders for kind in _FONTS)
