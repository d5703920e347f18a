"""Blocks as Markdown, as GitHub shows it: every text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from goldenctl.errors import printable
from goldenctl.report.blocks import (
    Block,
    Cell,
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
    Span,
    Table,
    Words,
    pieces,
    table,
)

_MARKUP = set("&<>\"'|`*_~[]#!@\\:")
_MARKS = {Mark.RIGHT: "✅", Mark.WRONG: "❌", Mark.NEITHER: "➖"}
_TAGS = {
    "strong": ("**", "**"),
    "good": ("**", "**"),
    "bad": ("**", "**"),
    "warn": ("**", "**"),
    "code": ("<code>", "</code>"),
}


def rendered(made: Iterable[Section]) -> Iterator[str]:
    """Yield the lines of sections."""
    for section in made:
        if section.blocks and "markdown" in section.outputs:
            inside = blocks(section.blocks)
            yield from _fold(section.title, inside) if section.folded else inside


def blocks(made: Iterable[Block]) -> Iterator[str]:
    """Yield the lines of blocks one after the other; a block ends with an empty line."""
    for block in made:
        yield from _of(block)


def _of(block: Block) -> Iterator[str]:
    match block:
        case Lines(lines):
            yield from (_line(line) for line in lines)
            yield ""
        case Heading(words):
            yield f"**{text(words)}**\n"
        case Table(columns, rows, caption):
            yield f"| {' | '.join(escape(column.title) for column in columns)} |"
            yield f"|{' --- |' * len(columns)}"
            yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
            yield f"\n{escape(caption)}\n" if caption else ""
        case Facts(pairs):
            named = ((Span(key, "code"), value) for key, value in pairs)
            yield from _of(table(("", ""), named))
        case Drawing(_, instead):
            yield from blocks(instead)
        case Command(purpose):
            yield f"{escape(purpose)}:\n\n{_pre(block.text)}\n"
        case Pre(said):
            yield f"{_pre(said)}\n"
        case Fold(title, inside):
            yield from _fold(title, blocks(inside))


def _fold(title: str, inside: Iterable[str]) -> Iterator[str]:
    yield f"<details><summary>{escape(title)}</summary>\n"
    yield from inside
    yield "</details>\n"


def text(words: Words) -> str:
    """Return words as Markdown."""
    made = []
    for piece in pieces(words):
        if isinstance(piece, Mark):
            made.append(_MARKS[piece])
        else:
            start, end = _TAGS.get(piece.style, ("", "")) if piece.text else ("", "")
            made.append(f"{start}{escape(piece.text)}{end}")
    return "".join(made)


def _line(line: Line) -> str:
    return "\n".join([f"- {text(line.words)}", *(f"  - {text(said)}" for said in line.details)])


def _cell(cell: Cell) -> str:
    return text(cell.words) + (f" ({escape(cell.note)})" if cell.note else "")


def _pre(said: str) -> str:
    lines = "\n".join(html.escape(printable(line)) for line in said.splitlines())
    return f"<pre>{lines}</pre>"


def escape(text: str) -> str:
    """Return a text that neither Markdown nor HTML takes for markup, in one table cell."""
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in printable(text))
