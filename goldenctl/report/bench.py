"""A benchmark on the terminal: backends side by side, by kind of op, and the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from goldenctl.errors import printable
from goldenctl.places import short_name
from goldenctl.records.units import factor, per_second
from goldenctl.records.words import duration, plural
from goldenctl.report.console_parts import make_console
from goldenctl.studies.bench import Bench, Comparison, Result, Spread

_MANY = 6


def print_bench(bench: Bench, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print the times of every backend; ``verbose`` adds each sublayer."""
    console = console or make_console()
    console.print(
        f"{bench.passes} passes in turn, each op the median of {bench.launches} launches, "
        f"{bench.dtype}; times are medians of passes, ± half their quartile distance"
    )
    console.print(_table(bench, verbose=verbose))
    for result in bench.results:
        console.print(f"{_name(result.label)}: {escape(printable(result.program))}")
        failed = [short_name(path) for path in result.failed]
        if failed:
            more = f", and {len(failed) - _MANY} more" if len(failed) > _MANY else ""
            names = escape(printable(", ".join(failed[:_MANY])))
            console.print(f"  [bold red]✗ failed[/], so left out for all: {names}{more}")
    for comparison in bench.comparisons:
        console.print(_verdict(comparison))


def _table(bench: Bench, *, verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for number, result in enumerate(bench.results):
        table.add_column(_name(result.label), justify="right", no_wrap=True)
        if number:
            table.add_column("ratio", justify="right", no_wrap=True)
    first = bench.results[0]
    kinds = sorted(first.ops, key=lambda kind: -first.ops[kind].median)
    for kind in kinds:
        _add(table, kind, [result.ops.get(kind) for result in bench.results])
    if verbose:
        for path in first.sublayers:
            spreads = [result.sublayers.get(path) for result in bench.results]
            _add(table, printable(short_name(path)), spreads)
    _add(table, "[bold]all[/]", [result.total_ns for result in bench.results])
    for step in first.steps:
        cells: list[str] = []
        for number, result in enumerate(bench.results):
            cells += [per_second(_rate(result, step.kind))] + [""] * bool(number)
        table.add_row(f"{step.kind}, {plural(step.tokens, 'token')}", *cells)
    return table


def _add(table: Table, name: str, spreads: list[Spread | None]) -> None:
    base = spreads[0]
    cells: list[str] = []
    for number, spread in enumerate(spreads):
        cells.append("-" if spread is None else _time(spread))
        if number:
            known = spread is not None and base is not None and base.median
            cells.append(factor(spread.median / base.median) if known else "-")  # type: ignore[union-attr]
    table.add_row(name, *cells)


def _time(spread: Spread) -> str:
    return f"{duration(round(spread.median))} ±{spread.relative / 2:.0%}"


def _rate(result: Result, kind: str) -> float:
    return next((step.tokens_per_s for step in result.steps if step.kind == kind), 0.0)


def _verdict(comparison: Comparison) -> str:
    label, base, ratio = _name(comparison.label), _name(comparison.base), comparison.ratio
    range_ = f"{ratio.low:.2f} to {ratio.high:.2f}"
    times = f"[bold]{ratio.median:.2f}[/] times ({range_}) as long as {base}"
    if comparison.verdict == "few":
        return f"{label} takes {times}; too few passes to conclude anything, use --repeat"
    if comparison.verdict == "noisy":
        return (
            f"{label} takes {range_} times as long as {base}: [bold yellow]the spread is too "
            "large to conclude anything[/]; try a quieter machine or more passes"
        )
    if comparison.verdict == "level":
        return f"{label} takes {times}: no difference beyond the spread"
    return f"{label} is {comparison.verdict}: it takes {times}"


def _name(label: str) -> str:
    return escape(printable(label))
