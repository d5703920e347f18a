"""What the terminal's views share: the console, clean text, lines that keep their
indent when they wrap."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from goldenctl.errors import printable

_PIPE_COLUMNS = 400
_GAP = 3


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


def unbroken(text: str | Text) -> Text:
    """Return a line that is to be copied or searched for: whole, however narrow the console.

    Print it with ``crop=False``.
    """
    line = Text(text) if isinstance(text, str) else text
    line.no_wrap, line.overflow = True, "ignore"
    return line


@dataclass
class Pairs:
    """Keys beside their values, a line each; print it with ``crop=False``.

    A value that is ``exact``, such as a command or a digest, stands unbroken on its line.
    Others wrap, in a column of their own.
    """

    _rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, key: str, value: object, *, exact: bool = False) -> None:
        """Add a row, unless there is nothing to say."""
        if value not in ("", None):
            self._rows.append((key, printable(str(value)), exact))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((cell_len(key) for key, *_ in self._rows), default=0) + _GAP
        room = max(1, options.max_width - indent)
        for key, value, exact in self._rows:
            whole = Text(value)
            lines = [whole] if exact else whole.wrap(console, room, overflow="fold")
            for number, line in enumerate(lines):
                title = "" if number else key
                padding = " " * (indent - cell_len(title))
                yield unbroken(Text.assemble((title, "bold"), padding, line))
