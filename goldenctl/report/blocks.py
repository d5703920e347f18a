"""What reports are made of: sections of blocks, built once for every output.

A block is data without markup. Each output renders all of them in its own way, and escapes every
text in one place: ``render_console``, ``render_html``, ``render_markdown``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from goldenctl.report.svg import Figure
from goldenctl.shell import quoted

Style = Literal["", "strong", "good", "bad", "warn", "soft", "code"]
Output = Literal["console", "html", "markdown"]
IN_FILES: tuple[Output, ...] = ("html", "markdown")


class Mark(Enum):
    """A verdict as one sign."""

    RIGHT = "✓"
    WRONG = "✗"
    NEITHER = "-"

    @classmethod
    def of(cls, ok: bool) -> Mark:
        return cls.RIGHT if ok else cls.WRONG


@dataclass(frozen=True)
class Span:
    """Words in one style; ``code`` is what a reader copies or looks for elsewhere."""

    text: str
    style: Style = ""


Piece = str | Span | Mark
Words = Piece | tuple[Piece, ...]


def pieces(words: Words) -> tuple[Span | Mark, ...]:
    """Return words as their pieces, plain texts as spans without a style."""
    parts = words if isinstance(words, tuple) else (words,)
    return tuple(Span(part) if isinstance(part, str) else part for part in parts)


@dataclass(frozen=True)
class Line:
    """A line, indented by so many columns on a terminal, and what stands below it."""

    words: Words
    details: tuple[Words, ...] = ()
    indent: int = 0


@dataclass(frozen=True)
class Lines:
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Heading:
    words: Words


@dataclass(frozen=True)
class Facts:
    """Names and their values; pairs without a value are left out."""

    pairs: tuple[tuple[str, Words], ...]


@dataclass(frozen=True)
class Column:
    """``right`` is for numbers. Where there is little room the columns of the lowest ``spare``
    above 0 go first."""

    title: str
    right: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Cell:
    """A cell; its ``note`` stands in parentheses beside it, or below where there is no room."""

    words: Words
    note: str = ""


@dataclass(frozen=True)
class Table:
    """``caption`` explains its columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


def table(
    titles: Sequence[Column | str], rows: Iterable[Sequence[Cell | Words]], caption: str = ""
) -> Table:
    """Return a table; plain titles are of columns of text, plain words are cells without note.
    A column in which no row has anything is left out."""
    columns = [Column(title) if isinstance(title, str) else title for title in titles]
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    kept = [i for i in range(len(columns)) if not cells or any(row[i].words for row in cells)]
    chosen = tuple(tuple(row[i] for i in kept) for row in cells)
    return Table(tuple(columns[i] for i in kept), chosen, caption)


def numbers(*titles: str, spare: int = 0) -> list[Column]:
    """Return columns of numbers."""
    return [Column(title, right=True, spare=spare) for title in titles]


@dataclass(frozen=True)
class Drawing:
    """A figure, and what outputs show that cannot draw; ``wide`` ones take the page's width."""

    figure: Figure | None
    instead: tuple[Block, ...] = ()
    wide: bool = True


@dataclass(frozen=True)
class Command:
    """A command line and what it is for."""

    purpose: str
    argv: tuple[str, ...]

    @property
    def text(self) -> str:
        return quoted(self.argv)


@dataclass(frozen=True)
class Pre:
    """Text of another program, line by line."""

    text: str


@dataclass(frozen=True)
class Fold:
    """What only few want to see: closed on a page, on a terminal shown by --verbose."""

    title: str
    blocks: tuple[Block, ...]
    open: bool = False


Block = Lines | Heading | Facts | Table | Drawing | Command | Pre | Fold


@dataclass(frozen=True)
class Section:
    """A part of a report; left out where it has no blocks. Markdown closes ``folded`` ones."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    hint: str = ""
    folded: bool = False
    outputs: tuple[Output, ...] = ("console", "html", "markdown")
