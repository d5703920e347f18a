"""A selftest on the terminal: the rates, what went wrong, the gates of the field."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from goldenctl.records.trials import Selftest
from goldenctl.report.console_parts import clean, indented

_SHOWN = 10


def selftest_view(result: Selftest, *, verbose: bool) -> RenderableType:
    """Show the rates and tables; ``verbose`` adds every complaint and every fault by op."""
    mark = "[bold green]✓ PASS[/]" if result.ok else "[bold red]✗ FAIL[/]"
    lines = [
        f"{mark}  {result.dtype}: {len(result.visible)} visible faults, {result.hidden} that "
        "this input",
        "  does not show (they move no row by 8 times its rounding; counted apart)",
        "",
    ]
    for label, good, total, least in result.rates():
        share = f"{good / total:.1%}" if total and least != "none" else "" if total else "none"
        lines.append(f"  {label:18} {good:5} of {total:5}  {share:>6}  ({least})")
    complaints = result.complaints()
    shown = complaints if verbose else complaints[:_SHOWN]
    lines += [f"  [red]{clean(line)}[/]" for line in shown]
    if len(complaints) > len(shown):
        lines.append(f"  [red]... and {len(complaints) - len(shown)} more[/]")
    parts: list[RenderableType] = list(indented(lines))
    parts += [Text(), _by_op(result), Text(), _gates(result)]
    return Group(*parts, *(Text(), _by_fault(result)) if verbose else ())


def _by_op(result: Selftest) -> Table:
    table = _table("op", "visible faults", "caught", "named")
    for op, *counts in result.by_op():
        table.add_row(clean(op), *map(str, counts))
    return table


def _gates(result: Selftest) -> Table:
    table = _table("gate", "caught", "false alarms")
    for gate, caught, alarms, total in result.by_gate():
        table.add_row(clean(gate), f"{caught:.1%}", f"{alarms} of {total}")
    return table


def _by_fault(result: Selftest) -> Table:
    table = _table("fault", "op", "trials", "visible", "caught", "named", "not shown, but caught")
    for fault, op, *counts in result.by_fault():
        table.add_row(clean(fault), clean(op), *map(str, counts))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table
