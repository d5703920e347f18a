"""What only the page shows: maps to click on, pictures, the table of all tensors to filter."""

from __future__ import annotations

from collections.abc import Iterator

from goldenctl.records.pictures import Picture
from goldenctl.records.report import NEUTRAL, Report, TensorResult, worst_share
from goldenctl.records.words import Places, duration, group_of, groups_of, of_tolerance, used
from goldenctl.report import figures
from goldenctl.report.answers import first_culprit, main_group
from goldenctl.report.blocks import Fold, Mark, numbers, table
from goldenctl.report.figure_map import KEY, labels_in_sight, layer_map
from goldenctl.report.measures import MEASURES, of_logits
from goldenctl.report.render_html import Landmark, blocks, escape, figure, fold, scroll, text
from goldenctl.report.svg import tag

MOST_TENSORS = 1000
MOST_MAPS = 8


def listed(report: Report) -> list[TensorResult]:
    """Return the tensors that the page lists: all, or the wrong and the worst of very many."""
    tensors = report.tensors
    if len(tensors) <= MOST_TENSORS:
        return tensors
    main = main_group(report)

    def rank(i: int) -> tuple[bool, bool, float]:
        tensor = tensors[i]
        return (group_of(tensor.name) != main, tensor.ok, -worst_share([tensor]))

    kept = sorted(range(len(tensors)), key=rank)[:MOST_TENSORS]
    return [tensors[i] for i in sorted(kept)]


def maps(report: Report) -> Landmark:
    """Return the maps of layers and ops: the case and step wrong first is open."""
    groups = groups_of(report)
    if not report.sublayers:
        return Landmark("map", "Map", "", "")
    main = main_group(report)
    order = sorted(groups, key=lambda group: group != main)[:MOST_MAPS]
    links = {tensor.name: f"#t{i}" for i, tensor in enumerate(listed(report))}
    panel = '<div id="op" role="status" aria-live="polite"></div>'
    parts = [f'<div class="beside">{_map(report, order[0], links)}{panel}</div>{_key()}']
    for group in order[1:]:
        name = escape(Places(report).group(group))
        parts.append(fold(name, _map(report, group, links)))
    if len(groups) > len(order):
        parts.append(f"<p>And {len(groups) - len(order)} more cases and steps.</p>")
    hint = "Each square is one op's output. Click one, or move with the arrow keys and press "
    hint += "Enter, for its numbers. ✗ is wrong, ! has no number."
    return Landmark("map", "Layers and ops", hint, "".join(parts))


def _key() -> str:
    """The map's colours in words."""
    square = '<svg class="fig" width="14" height="14" aria-hidden="true">{}</svg>'
    items = []
    for name, words in KEY:
        drawn = tag("rect", x=1, y=1, width=12, height=12, rx=2, class_=name)
        items.append(f"<li>{square.format(drawn)} {escape(words)}</li>")
    return (
        f'<p class="hint key">Share of the tolerance used</p><ul class="key">{"".join(items)}</ul>'
    )


def _map(report: Report, group: str, links: dict[str, str]) -> str:
    drawn = layer_map(report, group, links)
    first = None if report.ok else first_culprit(report)
    svg = drawn.svg(role="group")
    if first is not None and first.name in links and group_of(first.name) == group:
        link = f'<a href="{links[first.name]}"'
        svg = svg.replace(link, f'{link} data-first="1"', 1)
    caption = f"<figcaption>{escape(drawn.words)}</figcaption>"
    rows_ = labels_in_sight(report, group)
    return f'<figure class="map"><div class="scroll">{rows_}{svg}</div>{caption}</figure>'


def pictures(report: Report) -> Landmark:
    """Return the figures of the worst tensors, the first opened."""
    results = {tensor.name: tensor for tensor in report.tensors}
    parts = []
    for i, picture in enumerate(report.pictures):
        tensor = results.get(picture.name)
        if tensor is not None:
            parts.append(_picture(Places(report), i, picture, tensor))
    title = "The worst tensors" if report.ok else "Where and how it is wrong"
    hint = "Blue is within tolerance, orange beyond it. Errors are in units of "
    hint += "the rounding that was recorded for their row, or of the tensor's tolerance."
    return Landmark("worst", title, hint, "".join(parts))


def _picture(places: Places, i: int, picture: Picture, tensor: TensorResult) -> str:
    name = f"{text(Mark.of(tensor.ok))} {escape(places.tensor(tensor.name))}"
    used = f'<span class="soft">{escape(of_tolerance(tensor.share))}</span>'
    drawn = [draw(picture) for draw in (figures.histogram, figures.quantiles, figures.scatter)]
    where = figures.strips(picture)
    parts = [figure(where, wide=True)] if where is not None else []
    parts.append(f'<div class="three">{"".join(figure(d) for d in drawn if d is not None)}</div>')
    if picture.looks_like and not tensor.ok:
        looks = escape("; ".join(picture.looks_like))
        parts.insert(0, f"<p>The error looks like: {looks}</p>")
    if picture.worst:
        cells = (
            (x.where, f"{x.actual:.6g}", f"{x.expected:.6g}", f"{x.error:.3g}")
            for x in picture.worst
        )
        made = table(("worst elements", *numbers("actual", "expected", "error")), cells)
        parts.append(blocks([Fold("Worst elements", (made,))]))
    opened = " open" if i == 0 else ""
    return (
        f'<details class="pic" id="p{i}"{opened}><summary>{name} {used}</summary>'
        f"{''.join(parts)}</details>"
    )


_COLUMNS = (
    ("verdict", False), ("tensor", False), ("op", False), ("used", True),
    *((measure.title, True) for measure in MEASURES), ("golden", True), ("run", True),
    ("judged by", False), ("worst at", False), ("said", False),
)  # fmt: skip


def every_tensor(report: Report) -> Landmark:
    """Return the table of all tensors, to be filtered and sorted."""
    tensors = listed(report)
    if not tensors:
        return Landmark("all", "All tensors", "", "")
    places = Places(report)
    drawn = {picture.name: f"p{i}" for i, picture in enumerate(report.pictures)}
    head = "".join(
        f'<th scope="col"{_right(right)}>{escape(title)}</th>' for title, right in _COLUMNS
    )
    body = "".join(
        _row(places, i, tensor, drawn.get(tensor.name, "")) for i, tensor in enumerate(tensors)
    )
    shown = f'<table id="tensors"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
    tools = (
        '<div class="tools" hidden><label>Filter by name <input id="filter" type="search"></label>'
        '<label><input id="wrong" type="checkbox"> only wrong ones</label>'
        '<span id="count" class="soft" role="status"></span></div>'
    )
    left = len(report.tensors) - len(tensors)
    hint = f"{left:,} that passed are left out here; --csv has every one." if left else ""
    content = fold(f"{len(tensors):,} tensors", f"{tools}{scroll(shown, 'All tensors')}")
    return Landmark("all", "All tensors", hint, content)


def _row(places: Places, i: int, tensor: TensorResult, picture: str) -> str:
    cells = "".join(_cells(places, tensor))
    name = escape(places.tensor(tensor.name))
    more = f' data-pic="{picture}"' if picture else ""
    ok = int(tensor.ok or tensor.state in NEUTRAL)
    return (
        f'<tr id="t{i}" data-ok="{ok}" data-state="{escape(tensor.state)}" '
        f'data-name="{name}"{more}>{cells}</tr>\n'
    )


def _cells(places: Places, tensor: TensorResult) -> Iterator[str]:
    metrics = tensor.metrics
    yield f"<td>{text(Mark.NEITHER if tensor.state in NEUTRAL else Mark.of(tensor.ok))}"
    yield f"<td>{escape(places.tensor(tensor.name))}<td>{escape(tensor.op)}"
    yield _number(used(tensor), worst_share([tensor]))
    for measure in MEASURES:
        yield _number(measure.said(metrics), measure.sorts_by(metrics))
    yield _number(_time(tensor.expected_ns, tensor.expected_iqr_ns), tensor.expected_ns)
    yield _number(_time(tensor.actual_ns, tensor.actual_iqr_ns), tensor.actual_ns)
    yield f"<td>{escape(tensor.rule)}"
    said = tensor.message or (of_logits(tensor.logits) if tensor.logits is not None else "")
    yield f'<td class="w">{escape(tensor.worst)}<td class="w">{escape(said)}'


def _time(ns: int, iqr_ns: int) -> str:
    """A median, and half the distance of the quartiles where it was measured."""
    return f"{duration(ns)} ± {duration(iqr_ns // 2)}" if iqr_ns > 1 else duration(ns)


def _number(shown: str, value: float) -> str:
    """A cell that is sorted by its number; what is not finite sorts as very large."""
    return f'<td class="n" data-v="{_sorted(value):.4g}">{shown}'


def _sorted(value: float) -> float:
    return value if abs(value) < 1e300 else 1e300


def _right(right: bool) -> str:
    return ' class="n"' if right else ""
