"""The small pieces of the page: escaping, sections, tables, facts, figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from goldenctl.report.svg import Figure, text_of

escape = text_of


@dataclass(frozen=True)
class Section:
    """A landmark of the page; left out when it has no content. ``hint`` is plain text."""

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


def figure(drawn: Figure, class_: str = "") -> str:
    """Return a figure with its caption; wide ones scroll on small screens."""
    caption = f"<b>{escape(drawn.title)}.</b> {escape(drawn.words)}"
    picture = drawn.svg()
    if class_ == "wide":
        picture = scroll(picture, drawn.title)
    return f'<figure class="{class_}">{picture}<figcaption>{caption}</figcaption></figure>'


def scroll(content: str, name: str) -> str:
    """Return content that scrolls sideways by itself, also with the keyboard."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"{content}</div>"
    )


def rows(titles: Sequence[str], cells: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table; cells are HTML already, columns in ``numbers`` stand at the right."""
    right = dict.fromkeys(numbers, ' class="n"')
    head = "".join(
        f'<th scope="col"{right.get(i, "")}>{escape(title)}</th>' if title else "<td></td>"
        for i, title in enumerate(titles)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{right.get(i, str())}>{cell}</td>' for i, cell in enumerate(row))}</tr>"
        for row in cells
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return scroll(table, "Table")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">{items}</dl>'


def mark(ok: bool) -> str:
    if ok:
        return '<span class="ok" role="img" aria-label="right">✓</span>'
    return '<span class="no" role="img" aria-label="wrong">✗</span>'
