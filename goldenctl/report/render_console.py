"""Blocks on the terminal, made for 80 columns; in a pipe lines are as long as they need to be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.report.blocks import (
    Block,
    Cell,
    Column,
    Command,
    Drawing,
    Facts,
    Fold,
    Heading,
    Line,
    Lines,
    Mark,
    Pre,
    Section,
    Table,
    Words,
    pieces,
)

_PIPE_COLUMNS = 400
_GAP = 3
_ANY_WIDTH = 1 << 16
_NAME_COLUMNS = 19
_COLOURS = {
    "strong": "bold", "good": "bold green", "bad": "bold red", "warn": "bold yellow",
    "soft": "dim", Mark.RIGHT: "green", Mark.WRONG: "bold red", Mark.NEITHER: "dim",
}  # fmt: skip


def make_console() -> Console:
    """Return a console on standard output; in a pipe it breaks no line."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(highlight=False, width=_PIPE_COLUMNS)
    return console


def show(blocks: Iterable[Block | Section], console: Console | None = None) -> None:
    """Print blocks with all that is folded away."""
    console = console or make_console()
    for part in rendered(blocks, verbose=True):
        console.print(part, crop=False)


def rendered(
    blocks: Iterable[Block | Section], *, verbose: bool = False
) -> Iterator[RenderableType]:
    """Yield what rich can print, with ``crop=False``; ``verbose`` opens what is folded away.

    An empty line stands between blocks, but not between lines, nor below a heading.
    """
    before: Block | None = None
    for block in _flat(blocks, verbose=verbose):
        together = isinstance(before, Lines) and isinstance(block, Lines)
        if before is not None and not together and not isinstance(before, Heading):
            yield Text()
        before = block
        yield from _of(block)


def _flat(blocks: Iterable[Block | Section], *, verbose: bool) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Section):
            inside = block.blocks if "console" in block.outputs else ()
        elif isinstance(block, Drawing):
            inside = block.instead
        elif isinstance(block, Fold):
            inside = (Heading(block.title), *block.blocks) if verbose else ()
        else:
            if block != Lines(()):
                yield block
            continue
        yield from _flat(inside, verbose=verbose)


def _of(block: Block) -> Iterator[RenderableType]:
    match block:
        case Lines(lines):
            for line in lines:
                yield from _line(line)
        case Heading(words):
            yield _text(words, "bold")
        case Table():
            yield _Fitted(block)
        case Facts(pairs):
            yield _Pairs(pairs)
        case Command(purpose):
            yield _text(f"{purpose}:")
            yield _unbroken(Text(f"  {printable(block.text)}"))
        case Pre(text):
            yield from (_unbroken(Text(printable(line))) for line in text.splitlines())


def _text(words: Words, style: str = "") -> Text:
    """Return words as they print: no text of a file is markup or moves the cursor."""
    made = Text(style=style)
    for piece in pieces(words):
        if isinstance(piece, Mark):
            made.append(piece.value, _COLOURS[piece])
        else:
            made.append(printable(piece.text), _COLOURS.get(piece.style, ""))
    return made


def _line(line: Line) -> Iterator[RenderableType]:
    """What wraps stays below the line's first word."""
    yield _indented(line.words, line.indent)
    for detail in line.details:
        yield _indented(detail, line.indent + 4)


def _indented(words: Words, indent: int) -> RenderableType:
    said = _text(words)
    if any(piece.style == "code" for piece in pieces(words) if not isinstance(piece, Mark)):
        return _unbroken(Text(" " * indent).append_text(said))
    return Padding(said, (0, 0, 0, indent), expand=False) if indent else said


def _unbroken(line: Text) -> Text:
    """Return a line that is to be copied or searched for: whole, however narrow the console."""
    line.no_wrap, line.overflow = True, "ignore"
    return line


@dataclass(frozen=True)
class _Pairs:
    """Names beside their values, a line each: values of ``code`` stand unbroken, others wrap in
    a column of their own."""

    pairs: Sequence[tuple[str, Words]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((cell_len(printable(key)) for key, _ in self.pairs), default=0) + _GAP
        room = max(1, options.max_width - indent)
        for key, words in self.pairs:
            value = _text(words)
            exact = any(getattr(piece, "style", "") == "code" for piece in pieces(words))
            for number, line in enumerate([value] if exact else value.wrap(console, room)):
                title = "" if number else printable(key)
                padding = " " * (indent - cell_len(title))
                yield _unbroken(Text.assemble((title, "bold"), padding, line))


@dataclass(frozen=True)
class _Fitted:
    """A table as wide as the console at most.

    A note that does not fit beside its cell stands on a line of its own below. Then spare columns
    are left out, one group after the other. Names are broken only where they fit in no other way.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups = sorted({column.spare for column in self.table.columns if column.spare})
        tries = [(True, 0), *((False, last) for last in (0, *groups))]
        wide = options.update(max_width=_ANY_WIDTH)
        for beside, last in tries:
            made = self._made(beside=beside, left_out=last)
            if Measurement.get(console, wide, made).maximum <= options.max_width:
                break
        else:
            yield self._made(beside=True, left_out=tries[-1][1])
            yield from self._caption()
            return
        notes = ["", *(self._below(row, beside=beside) for row in self.table.rows)]
        lines = console.render_lines(made, options, pad=False)
        for line, note in zip(lines, notes, strict=True):
            yield from line
            yield Segment.line()
            if note:
                yield Text(f"     ({printable(note)})")
        yield from self._caption()

    def _caption(self) -> Iterator[Text]:
        if self.table.caption:
            yield Text(printable(self.table.caption), "dim")

    def _below(self, row: tuple[Cell, ...], *, beside: bool) -> str:
        return next((c.note for c in row if c.note and not self._fits(c, beside=beside)), "")

    def _fits(self, cell: Cell, *, beside: bool) -> bool:
        """Whether a note stands beside its cell: it need not make the column wider."""
        return beside or _noted(cell).cell_len <= self._room

    @cached_property
    def _room(self) -> int:
        noted = [i for row in self.table.rows for i, cell in enumerate(row) if cell.note]
        names = (_text(row[i].words).cell_len for i in noted[:1] for row in self.table.rows)
        return max(_NAME_COLUMNS, *names, 0)

    def _made(self, *, beside: bool, left_out: int) -> RichTable:
        columns = self.table.columns
        kept = [i for i, column in enumerate(columns) if not 0 < column.spare <= left_out]
        made = RichTable(box=None, pad_edge=False, header_style="bold")
        noted = {i for row in self.table.rows for i, cell in enumerate(row) if cell.note}
        for i in kept:
            _add(made, columns[i], least=_NAME_COLUMNS if i in noted else None)
        for row in self.table.rows:
            fits = (self._fits(cell, beside=beside) for cell in row)
            cells = [
                _noted(cell) if fit else _text(cell.words)
                for cell, fit in zip(row, fits, strict=True)
            ]
            made.add_row(*(cells[i] for i in kept))
        return made


def _add(made: RichTable, column: Column, *, least: int | None) -> None:
    title = Text(printable(column.title))
    if column.right:
        made.add_column(title, justify="right", no_wrap=True)
    else:
        made.add_column(title, overflow="fold", min_width=least)


def _noted(cell: Cell) -> Text:
    said = _text(cell.words)
    return said.append(f" ({printable(cell.note)})") if cell.note else said
