"""A check on the terminal: one table of steps, what is wrong below it, one last line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.records.checks import CheckStep
from goldenctl.records.uncompared import unchecked
from goldenctl.records.words import percent, plural
from goldenctl.report.console_parts import clean


def check_view(steps: Sequence[CheckStep]) -> RenderableType:
    """Return the steps as something rich can print, at 80 columns or more."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in ("golden", "step", "judged by"):
        table.add_column(title, overflow="fold")
    table.add_column("used", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for step in steps:
        mark = Text("✓", "green") if step.ok else Text("✗", "bold red")
        said = step.said if step.ok else step.state
        cells = [clean(text) for text in (step.golden, step.step, step.judged_by)]
        used = "" if step.share is None else percent(step.share)
        table.add_row(mark, *cells, used, clean(said))
    wrong = [step for step in steps if not step.ok]
    lines = [Text(printable(f"✗ {step.golden} {step.step}: {step.said}"), "red") for step in wrong]
    return Group(table, Text(), *lines, _verdict(steps, wrong))


def _verdict(steps: Sequence[CheckStep], wrong: Sequence[CheckStep]) -> Text:
    goldens = len({step.golden for step in steps})
    if not steps:
        return Text("✗ FAIL  nothing was checked", "bold red")
    if wrong:
        bad = len({step.golden for step in wrong})
        return Text(f"✗ FAIL  {bad} of {plural(goldens, 'golden set')}", "bold red")
    line = Text(
        f"✓ PASS  {plural(len(steps), 'step')} of {plural(goldens, 'golden set')}", "bold green"
    )
    if silent := unchecked(steps):
        line.append(f"; {printable(silent)}", "bold yellow")
    return line
