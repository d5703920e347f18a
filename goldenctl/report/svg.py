"""The pieces that figures are drawn from: SVG elements, scales, ticks, axes."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from goldenctl.errors import printable

LEFT = 52.0
"""Where drawings with numbers at the left begin, in pixels."""


def text_of(text: str) -> str:
    """Return text as SVG and HTML may hold it: one line, escaped."""
    return html.escape(printable(text))


def number(value: float) -> str:
    """Return a coordinate, as short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")


def tag(name: str, content: str = "", /, **attributes: str | float) -> str:
    """Return an element; ``_`` in attribute names is ``-``, a trailing one is dropped."""
    parts = [name]
    for key, value in attributes.items():
        given = value if isinstance(value, str) else number(value)
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(given)}"')
    head = " ".join(parts)
    return f"<{head}>{content}</{name}>" if content else f"<{head}/>"


def label(x: float, y: float, text: str, class_: str = "", **attributes: str | float) -> str:
    """Return a text at a point, escaped."""
    more = {"class_": class_, **attributes} if class_ else attributes
    return tag("text", text_of(text), x=x, y=y, **more)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Return a line through points."""
    steps = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return tag("path", d=f"M{steps}", class_=class_) if points else ""


def dots(points: Iterable[tuple[float, float]], class_: str) -> str:
    """Return round dots, in one element: lines of no length with round ends."""
    steps = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
    return tag("path", d=steps, class_=class_) if steps else ""


def triangles(points: Iterable[tuple[float, float]], class_: str) -> str:
    """Return small triangles, in one element."""
    steps = "".join(f"M{number(x)} {number(y - 4)}l4 7h-8z" for x, y in points)
    return tag("path", d=steps, class_=class_) if steps else ""


def crosses(points: Iterable[tuple[float, float]], class_: str, size: float = 4) -> str:
    """Return ✗ marks, in one element."""
    d = number(2 * size)
    steps = "".join(
        f"M{number(x - size)} {number(y - size)}l{d} {d}m-{d} 0l{d} -{d}" for x, y in points
    )
    return tag("path", d=steps, class_=class_) if steps else ""


@dataclass(frozen=True)
class Figure:
    """A finished drawing: its size in pixels, its meaning in words, and its elements."""

    name: str
    title: str
    words: str
    width: float
    height: float
    body: str

    def svg(
        self, *, css: str = "", background: str = "", role: str = "img", margin: float = 0
    ) -> str:
        """Return the SVG element; with ``css`` and ``background`` it stands alone."""
        title = f"<title>{text_of(self.title)}</title><desc>{text_of(self.words)}</desc>"
        style = f"<style>{css}</style>" if css else ""
        width, height = self.width + 2 * margin, self.height + 2 * margin
        sheet = tag("rect", x=-margin, y=-margin, width=width, height=height, fill=background)
        box = " ".join(map(number, (-margin, -margin, width, height)))
        return tag(
            "svg",
            title + style + (sheet if background else "") + self.body,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=box,
            width=width,
            height=height,
            class_="fig",
            role=role,
            aria_label=printable(f"{self.title}. {self.words}"),
        )


@dataclass(frozen=True)
class Scale:
    """Maps numbers to pixels: ``of`` first bends the number (log, asinh) where it must."""

    low: float
    high: float
    start: float
    end: float
    of: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        span = self.of(self.high) - self.of(self.low) or 1.0
        part = (self.of(value) - self.of(self.low)) / span
        return self.start + part * (self.end - self.start)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))


def linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers within a range, about ``wanted`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def decade_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return powers of ten within a range of positive numbers, not more than ``most``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(-(-(last - first + 1) // most), 1)
    return [10.0**e for e in range(first, last + 1, step)]


def tick_text(value: float) -> str:
    """Return a number as an axis shows it."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def left_axis(scale: Scale, ticks: Iterable[float], right: float) -> str:
    """Return horizontal grid lines with their numbers at the left."""
    parts = []
    for tick in ticks:
        y = scale(tick)
        parts.append(path([(LEFT, y), (right, y)], "axis"))
        parts.append(label(LEFT - 6, y + 4, tick_text(tick), "end"))
    return "".join(parts)


def bottom_axis(scale: Scale, ticks: Iterable[float], y: float) -> str:
    """Return numbers below a line at ``y``."""
    parts = [path([(scale.start, y), (scale.end, y)], "axis")]
    for tick in ticks:
        parts.append(path([(scale(tick), y), (scale(tick), y + 4)], "axis"))
        parts.append(label(scale(tick), y + 17, tick_text(tick), "mid"))
    return "".join(parts)
