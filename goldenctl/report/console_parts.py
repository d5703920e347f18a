"""Owns what the views of the terminal share: the console, clean text, lines that keep their
indent when they wrap."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from goldenctl.errors import printable

_PIPE_COLUMNS = 400


def make_console() -> Console:
    """Return a console on standard output; in a pipe it breaks no line."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(highlight=False, width=_PIPE_COLUMNS)
    return console


def clean(text: str) -> str:
    """Return text of a file as markup that prints it and nothing else."""
    return escape(printable(text))


def indented(lines: Iterable[str]) -> Iterator[RenderableType]:
    """Yield lines of markup; what wraps stays below the line's first word."""
    for line in lines:
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        said = Text.from_markup(text)
        yield Padding(said, (0, 0, 0, indent), expand=False) if indent else said
