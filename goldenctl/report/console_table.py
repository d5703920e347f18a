"""The table of sublayers on the terminal, and what it leaves out on a narrow one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.report.console_parts import clean

_ANY_WIDTH = 1 << 16
_NAME_COLUMNS = 19


@dataclass(frozen=True)
class Row:
    """One sublayer; ``note`` names its tensor that is wrong first. Cells are markup."""

    mark: Text
    name: str
    note: str
    cells: Sequence[str]

    @property
    def label(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass(frozen=True)
class SublayerTable:
    """A table as wide as the console at most.

    A note that does not fit beside its name stands on a line of its own below.
    Then the columns of ``spare`` are left out, one group after the other. Names are broken
    only where they fit in no other way.
    """

    titles: Sequence[str]
    rows: Sequence[Row]
    spare: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tries = [(True, 0), *((False, count) for count in range(len(self.spare) + 1))]
        wide = options.update(max_width=_ANY_WIDTH)
        for beside, count in tries:
            table = self._table(beside=beside, left_out=count)
            if Measurement.get(console, wide, table).maximum <= options.max_width:
                break
        else:
            yield self._table(beside=True, left_out=len(self.spare))
            return
        lines = console.render_lines(table, options, pad=False)
        notes = ["", *("" if self._fits(row, beside=beside) else row.note for row in self.rows)]
        for line, note in zip(lines, notes, strict=True):
            yield from line
            yield Segment.line()
            if note:
                yield Text.from_markup(f"     ({clean(note)})")

    def _fits(self, row: Row, *, beside: bool) -> bool:
        """Whether a note stands beside its name: it need not make the column wider."""
        return beside or cell_len(printable(row.label)) <= self._room

    @cached_property
    def _room(self) -> int:
        names = (cell_len(printable(row.name)) for row in self.rows)
        return max(_NAME_COLUMNS, *names, 0)

    def _table(self, *, beside: bool, left_out: int) -> Table:
        gone = {title for group in self.spare[:left_out] for title in group}
        kept = [i for i, title in enumerate(self.titles) if title not in gone]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column("sublayer", overflow="fold", min_width=_NAME_COLUMNS)
        for i in kept:
            table.add_column(clean(self.titles[i]), justify="right", no_wrap=True)
        for row in self.rows:
            label = row.label if self._fits(row, beside=beside) else row.name
            table.add_row(row.mark, clean(label), *(row.cells[i] for i in kept))
        return table
