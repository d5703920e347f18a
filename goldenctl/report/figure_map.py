"""The map of layers and ops, coloured by the share of its tolerance that each used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from goldenctl.places import short_name
from goldenctl.records.report import NEUTRAL, Report, SublayerResult, TensorResult
from goldenctl.records.words import Places, group_of, of_tolerance, plural
from goldenctl.report.palette import LEVELS, WORST_LEVEL, tensor_level
from goldenctl.report.svg import Figure, label, number, tag, text_of

CELL = 24.0
_TOP = 132.0
_ROW_LABEL = 86.0
_GAP = 8.0
_KEY_COLUMNS = 5
_LIGHT_LEVELS = ("l4", "f3", "f4")
"""Colours that a mark stands out from only in the colour of the paper."""


@dataclass(frozen=True)
class _Grid:
    """Where each tensor stands: rows are layers, columns are ops in order of computation."""

    rows: list[str]
    columns: list[tuple[str, str]]
    cells: list[tuple[int, int, TensorResult]]


def layer_map(report: Report, group: str, links: Mapping[str, str] | None = None) -> Figure:
    """Draw one case and step, with its key.

    ``links`` gives each tensor's name its link: the page's map, whose key stands beside it.
    """
    grid = _grid([s for s in report.sublayers if group_of(s.name) == group])
    places = Places(report)
    body = [_column_labels(grid.columns), _row_labels(grid.rows)]
    for row_, column, tensor in grid.cells:
        at = (_x(grid.columns, column), _TOP + row_ * CELL)
        body.append(_cell(at, tensor, places, links))
    bottom = _TOP + len(grid.rows) * CELL
    width = _x(grid.columns, len(grid.columns) - 1) + CELL + 60
    if links is None:
        body.append(_key(bottom + 18))
        width = max(width, 570.0)
    tensors = [tensor for *_, tensor in grid.cells if tensor.state not in NEUTRAL]
    wrong = sum(not tensor.ok for tensor in tensors)
    return Figure(
        "map",
        f"Layers and ops of {places.group(group)}" if group else "Layers and ops",
        f"{plural(len(grid.rows), 'row')} and {plural(len(grid.columns), 'column')} of ops; "
        f"{wrong} of {len(tensors)} tensors are wrong or have no number.",
        width,
        bottom + (84 if links is None else 4),
        "".join(body),
    )


def labels_in_sight(report: Report, group: str) -> str:
    """Return the map's row labels once more, to lie over it where it scrolls sideways."""
    rows = _grid([s for s in report.sublayers if group_of(s.name) == group]).rows
    height = _TOP + len(rows) * CELL + 4
    box = f"0 0 {number(_ROW_LABEL)} {number(height)}"
    return tag("svg", _row_labels(rows), viewBox=box, width=_ROW_LABEL, height=height,
               class_="fig rows", aria_hidden="true")  # fmt: skip


def _row_labels(rows: list[str]) -> str:
    return "".join(
        label(_ROW_LABEL - 8, _TOP + i * CELL + 16, row, "end") for i, row in enumerate(rows)
    )


def _grid(sublayers: list[SublayerResult]) -> _Grid:
    rows: dict[str, int] = {}
    columns: dict[tuple[str, str], int] = {}
    placed = []
    for sublayer in sublayers:
        row, kind = _row(sublayer.name)
        rows.setdefault(row, len(rows))
        for tensor in sublayer.tensors:
            placed.append((row, (kind, tensor.tap), tensor))
            if kind:
                columns.setdefault((kind, tensor.tap), len(columns))
    if not columns:
        columns = {key: i for i, key in enumerate(dict.fromkeys(key for _, key, _ in placed))}
    last = len(columns) - 1  # what is outside the layers stands below the last output
    cells = [(rows[row], columns.get(key, last), tensor) for row, key, tensor in placed]
    return _Grid(list(rows), list(columns), cells)


def _row(name: str) -> tuple[str, str]:
    """The row of a sublayer and its kind: ("02", "attention"), ("final_norm", "")."""
    parts = (short_name(name) or name).split(".")
    return (parts[1], parts[2]) if len(parts) == 3 else (".".join(parts), "")


def _x(columns: list[tuple[str, str]], column: int) -> float:
    """Where a column begins: kinds of sublayers stand apart."""
    kinds = [kind for kind, _ in columns[: column + 1]]
    breaks = sum(a != b for a, b in pairwise(kinds))
    return _ROW_LABEL + max(column, 0) * CELL + breaks * _GAP


def _column_labels(columns: list[tuple[str, str]]) -> str:
    parts, before, free = [], "", 0.0
    for i, (kind, tap) in enumerate(columns):
        x = _x(columns, i)
        turn = f"rotate(-52 {number(x + 15)} {number(_TOP - 6)})"
        parts.append(label(x + 15, _TOP - 6, tap, transform=turn))
        if kind != before:
            parts.append(label(max(x, free), 14, kind, "strong"))
            free = max(x, free) + 8.0 * len(kind)
        before = kind
    return "".join(parts)


def _cell(
    at: tuple[float, float],
    tensor: TensorResult,
    places: Places,
    links: Mapping[str, str] | None,
) -> str:
    x, y = at
    name = tensor_level(tensor)
    size = CELL - 2
    drawn = tag("rect", x=x + 1, y=y + 1, width=size, height=size, rx=3, class_=name)
    drawn += _mark(x + CELL / 2, y + CELL / 2, tensor, name)
    words = f"{places.tensor(tensor.name)}: {_state(tensor)}"
    if links is None or tensor.name not in links:
        return tag("g", tag("title", text_of(words)) + drawn)
    # The title is the tooltip; the link's name is read aloud.
    return tag("a", tag("title", text_of(words)) + drawn, href=links[tensor.name])


def _state(tensor: TensorResult) -> str:
    if tensor.state in NEUTRAL:
        return "not computed by this backend"
    if tensor.metrics is None:
        return tensor.state.replace("_", " ")
    return f"{tensor.state}, {of_tolerance(tensor.share)}"


def _mark(x: float, y: float, tensor: TensorResult, name: str) -> str:
    if tensor.ok or tensor.state in NEUTRAL:
        return ""
    on = " on" if name in _LIGHT_LEVELS else ""
    if tensor.metrics is None:  # an exclamation mark: there is nothing to compare
        start, stop = number(y - 5), number(y + 5)
        steps = f"M{number(x)} {start}v6M{number(x)} {stop}v0.1"
        return tag("path", d=steps, class_=f"mark{on}")
    return tag(
        "path",
        d=f"M{number(x - 4)} {number(y - 4)}l8 8m0-8l-8 8",
        class_=f"mark{on}",
    )


KEY = (
    *((name, words) for _, name, words in LEVELS),
    (WORST_LEVEL, "no number"),
    ("none", "not computed"),
)
"""Every colour with its meaning."""


def _key(y: float) -> str:
    """The colours in words."""
    parts = [label(0, y + 12, "share of the tolerance used", "strong")]
    for i, (name, words) in enumerate(KEY):
        x, top = 112.0 * (i % _KEY_COLUMNS), y + 22 + 20 * (i // _KEY_COLUMNS)
        parts.append(tag("rect", x=x + 1, y=top, width=13, height=13, rx=2, class_=name))
        parts.append(label(x + 20, top + 11, words))
    return "".join(parts)
