"""Blocks as HTML: every text is escaped here, on its way in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    Table,
    Words,
    pieces,
)
from goldenctl.report.svg import Figure, text_of

escape = text_of

_MARKS = {
    Mark.RIGHT: '<span class="ok" role="img" aria-label="right">✓</span>',
    Mark.WRONG: '<span class="no" role="img" aria-label="wrong">✗</span>',
    Mark.NEITHER: "–",
}
_TAGS = {
    "strong": ("<b>", "</b>"),
    "good": ('<span class="ok">', "</span>"),
    "bad": ('<span class="no">', "</span>"),
    "warn": ("<b>", "</b>"),
    "soft": ('<span class="soft">', "</span>"),
}


@dataclass(frozen=True)
class Landmark:
    """A part of the page; left out when it has no ``content``, which is HTML already."""

    id: str
    title: str
    hint: str
    content: str

    def html(self) -> str:
        hint = f'<p class="hint">{escape(self.hint)}</p>' if self.hint else ""
        head = f'<h2 id="{self.id}-title">{escape(self.title)}</h2>'
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-title">{head}{hint}\n'
            f"{self.content}\n</section>\n"
        )


def section(made: Section) -> Landmark:
    """Return a section as a landmark."""
    inside = blocks(made.blocks) if "html" in made.outputs else ""
    return Landmark(made.id, made.title, made.hint, inside)


def blocks(made: Iterable[Block]) -> str:
    """Return blocks one after the other."""
    return "".join(map(_of, made))


def _of(block: Block) -> str:
    match block:
        case Lines(lines):
            return f'<ul class="lines">{"".join(map(_line, lines))}</ul>' if lines else ""
        case Heading(words):
            return f"<h3>{text(words)}</h3>"
        case Table():
            return _table(block)
        case Facts(pairs):
            items = "".join(f"<dt>{escape(key)}</dt><dd>{text(value)}</dd>" for key, value in pairs)
            return f'<dl class="facts">{items}</dl>'
        case Drawing(None, instead):
            return blocks(instead)
        case Drawing(drawn, instead, wide):
            assert drawn is not None
            return figure(drawn, wide=wide) + blocks(_as_numbers(instead))
        case Command(purpose):
            return f'<div class="command"><p>{escape(purpose)}</p>{_pre([block.text])}</div>'
        case Pre(said):
            return _pre(said.splitlines())
        case Fold(title, inside, opened):
            return fold(escape(title), blocks(inside), opened=opened)


def _as_numbers(instead: tuple[Block, ...]) -> tuple[Block, ...]:
    """What other outputs show in place of a figure is folded away below it."""
    return (Fold("As a table", instead),) if instead else ()


def text(words: Words) -> str:
    """Return words as HTML."""
    made = []
    for piece in pieces(words):
        if isinstance(piece, Mark):
            made.append(_MARKS[piece])
        else:
            start, end = _TAGS.get(piece.style, ("", ""))
            made.append(f"{start}{escape(piece.text)}{end}")
    return "".join(made)


def _line(line: Line) -> str:
    return f"<li>{'<br>'.join(map(text, (line.words, *line.details)))}</li>"


def _pre(lines: Iterable[str]) -> str:
    said = "\n".join(map(escape, lines))
    return f'<div class="line"><pre tabindex="0">{said}</pre></div>'


def fold(title: str, content: str, *, opened: bool = False) -> str:
    """Return what is shown by a click; title and content are HTML already."""
    return f"<details{' open' * opened}><summary>{title}</summary>{content}</details>"


def figure(drawn: Figure, *, wide: bool = False) -> str:
    """Return a figure with its caption; wide ones scroll on small screens."""
    caption = f"<b>{escape(drawn.title)}.</b> {escape(drawn.words)}"
    picture = scroll(drawn.svg(), drawn.title) if wide else drawn.svg()
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{picture}<figcaption>{caption}</figcaption></figure>"


def scroll(content: str, name: str) -> str:
    """Return content that scrolls sideways by itself, also with the keyboard."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"{content}</div>"
    )


def _table(made: Table) -> str:
    right = [' class="n"' * column.right for column in made.columns]
    head = "".join(
        f'<th scope="col"{class_}>{escape(column.title)}</th>' if column.title else "<td></td>"
        for column, class_ in zip(made.columns, right, strict=True)
    )
    body = "".join(f"<tr>{_cells(row, right)}</tr>" for row in made.rows)
    shown = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    caption = f'<p class="hint">{escape(made.caption)}</p>' if made.caption else ""
    return scroll(shown, "Table") + caption


def _cells(row: Sequence[Cell], classes: Sequence[str]) -> str:
    pairs = zip(row, classes, strict=True)
    return "".join(f"<td{class_}>{_cell(cell)}</td>" for cell, class_ in pairs)


def _cell(cell: Cell) -> str:
    return text(cell.words) + (f" ({escape(cell.note)})" if cell.note else "")
