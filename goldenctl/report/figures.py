"""The figures of a report: pure functions from its data to drawings.

The page and the plot command show the same. ``a`` marks the golden or what is isolated (blue,
round), ``b`` the run or what is chained (orange, triangles).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from goldenctl.diff.pictures import probabilities
from goldenctl.places import short_name
from goldenctl.records.pictures import Histogram, Picture, Strip
from goldenctl.records.report import Report, SublayerResult
from goldenctl.records.structure import MODE
from goldenctl.records.words import amount, duration, group_of, of_tolerance, ratio
from goldenctl.report.palette import level
from goldenctl.report.svg import (
    LEFT,
    Figure,
    Scale,
    bottom_axis,
    crosses,
    decade_ticks,
    dots,
    label,
    left_axis,
    linear_ticks,
    path,
    tag,
    tick_text,
    triangles,
)

_BINS_PER_DECADE = 4
_ASINH_FROM = 12.0
_LEAST, _MOST = 1e-300, 1e300
_UNITS = {"budget": "expected rounding", "tolerance": "tolerance"}


def depth(report: Report, group: str) -> Figure | None:
    """Draw the relative L2 error of each sublayer's output along depth; None without any."""
    names, isolated, chained, culprits = _depths(report, group)
    finite = [x for x in (*isolated, *chained) if 0.0 < x < math.inf]
    if not names or not finite:
        return None
    low, high = max(min(finite) / 1.5, _LEAST), min(max(finite) * 1.5, _MOST)
    width, height = 720.0, 270.0
    y = Scale(low, high, height - 66, 44, math.log10)
    x = Scale(0, max(len(names) - 1, 1), LEFT + 14, width - 16)
    body = [left_axis(y, decade_ticks(low, high), width - 8), _depth_labels(names, x, height - 28)]
    edges = {0.0: (y.start + 16, "exact"), math.inf: (y.end - 14, "none")}
    for edge, (at, words) in edges.items():
        if edge in (*isolated, *chained):
            body.append(path([(LEFT, at), (width - 8, at)], "guide"))
            body.append(label(LEFT - 6, at + 4, words, "end"))
    legend = []
    for values, line, words in (
        (isolated, "a", "isolated: golden input for each"),
        (chained, "b", "chained: its own outputs"),
    ):
        points = [
            (x(i), edges[value][0] if value in edges else y.clipped(value))
            for i, value in enumerate(values)
        ]
        if points:
            draw = dots(points, "ad") if line == "a" else triangles(points, "bd")
            body += [path(points, line), draw]
            legend.append((line, words))
    marks = [(x(names.index(c)), y.start) for c in culprits if c in names]
    body.append(crosses(marks, "x"))
    if marks:
        legend.append(("x", "culprit"))
    body.append(_legend(legend, LEFT, 14))
    return Figure("depth", "Error along depth", _depth_words(names, isolated, chained),
                  width, height, "".join(body))  # fmt: skip


def _depths(report: Report, group: str) -> tuple[list[str], list[float], list[float], list[str]]:
    """Names, isolated errors, chained errors, culprits: either list may be empty."""
    if report.findings is not None and report.findings.depths:
        found = [d for d in report.findings.depths if group_of(d.name) == group]
        culprits = [short_name(c.sublayer) for c in report.culprits if group_of(c.name) == group]
        names = [short_name(d.name) or d.name for d in found]
        isolated, chained = [_known(d.local) for d in found], [_known(d.chained) for d in found]
        return names, isolated, chained, culprits
    sublayers = [s for s in report.sublayers if group_of(s.name) == group]
    errors = [_output_error(s) for s in sublayers]
    names = [short_name(s.name) or s.name for s in sublayers]
    is_chain = report.mode in ("chain", MODE)  # an engine goes on with its own outputs
    return (names, [], errors, []) if is_chain else (names, errors, [], [])


def _output_error(sublayer: SublayerResult) -> float:
    last = sublayer.tensors[-1] if sublayer.tensors else None
    if last is None or last.metrics is None or last.metrics.mismatches:
        return math.inf
    return _known(last.metrics.rel_l2)


def _known(error: float) -> float:
    """An error, Inf where there is none to be known."""
    return math.inf if math.isnan(error) else error


def _depth_labels(names: list[str], x: Scale, y: float) -> str:
    """Each decoder layer's number once, as many as fit."""
    parts, before, free = [], "", -1.0
    for i, name in enumerate(names):
        layer = name.split(".")
        text = layer[1] if len(layer) > 2 else name.replace("_", " ")
        width = 7.0 * len(text)
        if text != before and x(i) - width / 2 > free:
            anchor = "mid" if x(i) + width / 2 < x.end + 16 else "end"
            shown = x(i) if anchor == "mid" else x.end + 14
            parts.append(label(shown, y, text, anchor))
            free = x(i) + width / 2 + 6
        before = text
    # At the left, where a narrow screen shows it: there the chart scrolls sideways.
    parts.append(label(LEFT, y + 20, "sublayers in order of computation"))
    return "".join(parts)


def _depth_words(names: list[str], isolated: list[float], chained: list[float]) -> str:
    said = []
    for values, words in ((isolated, "isolated"), (chained, "chained")):
        if values:
            worst = max(range(len(values)), key=lambda i: values[i])
            said.append(
                f"the {words} error is largest at {names[worst]}, {_error(values[worst])}, "
                f"and {_error(values[-1])} at the end"
            )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _error(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "no number"


def strips(picture: Picture) -> Figure | None:
    """Draw the share of tolerance that each index of each axis uses; None without axes."""
    if not picture.strips:
        return None
    width, y, parts, said = 720.0, 4.0, [], []
    for strip in picture.strips:
        parts.append(_strip(strip, y, width))
        y += 52.0
        worst = max(range(len(strip.used)), key=lambda i: strip.used[i])
        at = worst * strip.step
        said.append(f"{strip.dim} {at} uses most, {of_tolerance(strip.used[worst])}")
    return Figure("strips", "Where the error is", f"Worst along each axis: {'; '.join(said)}.",
                  width, y, "".join(parts))  # fmt: skip


def _strip(strip: Strip, y: float, width: float) -> str:
    left = 96.0
    cell = min((width - left - 12) / len(strip.used), 28.0)
    parts = [label(left - 10, y + 18, strip.dim, "end")]
    for i, used in enumerate(strip.used):
        parts.append(tag("rect", x=left + i * cell, y=y, width=cell, height=26,
                         class_=f"cell {level(used)}" if cell > 5 else level(used)))  # fmt: skip
        if used > 1.0 and cell >= 10:
            on = " on" if level(used) in ("f3", "f4") else ""
            parts.append(crosses([(left + (i + 0.5) * cell, y + 13)], f"mark{on}", 3))
    every = max(-(-len(strip.used) // 16), 1)
    for i in range(0, len(strip.used), every):
        parts.append(label(left + (i + 0.5) * cell, y + 41, str(i * strip.step), "mid"))
    return "".join(parts)


def histogram(picture: Picture) -> Figure | None:
    """Draw how large the elements' errors are, beside what rounding alone would give."""
    made = picture.histogram
    if made is None or not made.counts:
        return None
    width, height = 350.0, 240.0
    low = min(made.low, -2.0)
    high = max(made.low + len(made.counts) / _BINS_PER_DECADE, 1.0)
    total = sum(made.counts) + made.zeros
    expected = list(_gaussian(low, high)) if picture.unit == "budget" else []
    top = max([count / total for count in made.counts] + [share for _, share in expected])
    x, y = Scale(low, high, LEFT, width - 20), Scale(0, top * 1.05, height - 48, 24)
    body = [left_axis(y, linear_ticks(0, top * 1.05, 4), width - 20)]
    for i, count in enumerate(made.counts):
        start, stop = (x(made.low + j / _BINS_PER_DECADE) for j in (i, i + 1))
        share = y(count / total)
        body.append(tag("rect", x=start + 0.5, y=share, width=stop - start - 1,
                        height=y(0) - share, class_="bar"))  # fmt: skip
    body.append(path([(x(decade), y(share)) for decade, share in expected], "b"))
    body.append(path([(x(0), 24), (x(0), y(0))], "guide"))
    decades = range(math.ceil(low), math.floor(high) + 1, max(round((high - low) / 6), 1))
    body.append(path([(x.start, y(0)), (x.end, y(0))], "axis"))
    for decade in decades:
        body.append(label(x(decade), y(0) + 17, tick_text(10.0**decade), "mid"))
    body.append(
        label((x.start + x.end) / 2, height - 10, f"|error| / {_UNITS.get(picture.unit)}", "mid")
    )
    if expected:
        body.append(_legend([("b", "Gaussian of that size")], LEFT + 6, 12))
    return Figure("histogram", "How large the errors are", _histogram_words(made, total, picture),
                  width, height, "".join(body))  # fmt: skip


def _gaussian(low: float, high: float) -> Iterator[tuple[float, float]]:
    """Share of a standard Gaussian's |z| in each bin, at the bin's middle."""
    normal = NormalDist()
    for i in range(round((high - low) * _BINS_PER_DECADE)):
        start, stop = (low + j / _BINS_PER_DECADE for j in (i, i + 1))
        yield (start + stop) / 2, 2 * (normal.cdf(10.0**stop) - normal.cdf(10.0**start))


def _histogram_words(made: Histogram, total: int, picture: Picture) -> str:
    first_above = round((1.0 - made.low) * _BINS_PER_DECADE)
    above = sum(made.counts[max(first_above, 0) :]) / total
    return (
        f"Of {total:,} elements {made.zeros / total:.0%} are equal and {above:.1%} are off by "
        f"more than 10 times their {_UNITS.get(picture.unit)}."
    )


def quantiles(picture: Picture) -> Figure | None:
    """Draw the errors' quantiles against those of a Gaussian of the expected size."""
    if not picture.quantiles or picture.sampled < 1:
        return None
    inverse = NormalDist().inv_cdf
    normal = [inverse(p) for p in probabilities(picture.sampled)]
    points = _finite(list(zip(normal, picture.quantiles, strict=False)))
    width, height = 350.0, 240.0
    reach = max([3.0, *(abs(value) for _, value in points)])
    side = max([3.0, *(abs(value) for value in normal)])
    bend = math.asinh if reach > _ASINH_FROM else float
    x, y = Scale(-side, side, LEFT, width - 12), Scale(-reach, reach, height - 48, 24, bend)
    ticks = _symmetric(reach) if bend is math.asinh else linear_ticks(-reach, reach)
    line = [(-side + i * side / 20) for i in range(41)]
    body = [
        left_axis(y, ticks, width - 12),
        bottom_axis(x, linear_ticks(-side, side), height - 48),
        path([(x(v), y.clipped(v)) for v in line], "guide"),
        dots([(x(a), y(b)) for a, b in points], "ag"),
        label((x.start + x.end) / 2, height - 10, "quantile of a Gaussian", "mid"),
        _legend([("guide", f"error = {_UNITS.get(picture.unit)}")], LEFT + 6, 12),
    ]
    middle = [abs(b / a) for a, b in points if 0.5 < abs(a) < 2.0]
    typical = sum(middle) / len(middle) if middle else math.nan
    return Figure("quantiles", "Error against its expectation",
                  f"Typical errors are {amount(typical)} times their {_UNITS.get(picture.unit)}, "
                  f"the largest {amount(reach)} times.", width, height, "".join(body))  # fmt: skip


def _symmetric(reach: float) -> list[float]:
    decades = decade_ticks(10.0 if reach > 100 else 1.0, reach, 3)
    return [*(-d for d in reversed(decades)), 0.0, *decades]


def scatter(picture: Picture) -> Figure | None:
    """Draw sampled pairs of actual and expected; the worst elements are triangles."""
    pairs = list(zip(picture.expected, picture.actual, strict=False))
    if not pairs:
        return None
    worst = min(len(picture.worst), len(pairs))
    typical, marked = pairs[: len(pairs) - worst], pairs[len(pairs) - worst :]
    typical, marked = _finite(typical), _finite(marked)
    lost = len(pairs) - len(typical) - len(marked)
    values = [value for pair in (*typical, *marked) for value in pair] or [0.0]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    width, height = 350.0, 240.0
    x, y = Scale(low, high, LEFT, width - 12), Scale(low, high, height - 48, 24)
    body = [
        left_axis(y, linear_ticks(low, high), width - 12),
        bottom_axis(x, linear_ticks(low, high), height - 48),
        path([(x(low), y(low)), (x(high), y(high))], "guide"),
        dots([(x(a), y(b)) for a, b in typical], "ag"),
        triangles([(x(a), y(b)) for a, b in marked], "bd"),
        label((x.start + x.end) / 2, height - 10, "expected (across) and actual (up)", "mid"),
        _legend([("bd", "worst elements")] if marked else [], LEFT + 6, 12),
    ]
    words = f"{len(typical)} sampled elements and the {len(marked)} worst"
    words += f"; {lost} are not finite and cannot be drawn." if lost else "."
    if lost:
        body.append(label(width - 12, height - 56, f"{lost} not finite, not drawn", "end"))
    return Figure("scatter", "Actual against expected", words, width, height, "".join(body))


def _finite(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]


def op_times(report: Report) -> Figure | None:
    """Draw how long each kind of op took on both sides; None where times were not taken."""
    sums: dict[str, list[int]] = {}
    for tensor in report.tensors:
        both = sums.setdefault(tensor.op, [0, 0])
        both[0] += tensor.expected_ns
        both[1] += tensor.actual_ns
    rows = sorted(((op, e, a) for op, (e, a) in sums.items() if e and a), key=lambda row: -row[2])
    if not rows:
        return None
    low = min(min(row[1:]) for row in rows) / 1.5
    high = max(max(row[1:]) for row in rows) * 1.5
    width, left, height = 720.0, 140.0, 62.0 + 24 * len(rows)
    x = Scale(low, high, left, width - 80, math.log10)
    body = []
    for tick in decade_ticks(low, high, 6):
        body.append(path([(x(tick), 28), (x(tick), height - 26)], "axis"))
        body.append(label(x(tick), height - 8, duration(round(tick)), "mid"))
    for i, (op, expected, actual) in enumerate(rows):
        y = 42.0 + 24 * i
        body.append(label(left - 12, y + 4, op, "end"))
        body.append(path([(x(expected), y), (x(actual), y)], "axis"))
        body += [dots([(x(expected), y)], "ad"), triangles([(x(actual), y)], "bd")]
        body.append(label(width - 66, y + 4, ratio(actual, expected)))
    body.append(_legend([("ad", "golden (reference)"), ("bd", "run (backend)")], left, 14))
    slow = max(rows, key=lambda row: row[2] / row[1])
    told = ratio(slow[2], slow[1])
    words = "" if told == "-" else f"Slowest against the reference: {slow[0]}, {told} its time."
    return Figure("times", "Time by op", words, width, height, "".join(body))


def _legend(entries: list[tuple[str, str]], x: float, y: float) -> str:
    parts = []
    for class_, words in entries:
        if class_ in ("a", "b", "guide"):
            parts.append(path([(x, y - 4), (x + 18, y - 4)], class_))
        if class_ in ("a", "ad", "ag"):
            parts.append(dots([(x + 9, y - 4)], "ad"))
        elif class_ in ("b", "bd") and words != "Gaussian of that size":
            parts.append(triangles([(x + 9, y - 4)], "bd"))
        elif class_ == "x":
            parts.append(crosses([(x + 9, y - 4)], "x"))
        parts.append(label(x + 24, y, words))
        x += 48 + 6.4 * len(words)
    return "".join(parts)
