"""A benchmark on the terminal: backends side by side, by kind of op, and the verdict."""

from __future__ import annotations

from goldenctl.places import short_name
from goldenctl.records.units import factor, per_second
from goldenctl.records.words import duration, plural
from goldenctl.report.blocks import Block, Column, Line, Lines, Mark, Span, Table, Words, table
from goldenctl.studies.bench import Bench, Comparison, Result, Spread

_MANY = 6


def bench_view(bench: Bench, *, verbose: bool = False) -> list[Block]:
    """Return the times of every backend; ``verbose`` adds each sublayer."""
    how = (
        f"{bench.passes} passes in turn, each op the median of {bench.launches} launches, "
        f"{bench.dtype}; times are medians of passes, ± half their quartile distance"
    )
    lines = []
    for result in bench.results:
        lines.append(Line(f"{result.label}: {result.program}"))
        failed = [short_name(path) for path in result.failed]
        if failed:
            more = f", and {len(failed) - _MANY} more" if len(failed) > _MANY else ""
            said = f", so left out for all: {', '.join(failed[:_MANY])}{more}"
            lines.append(Line((Mark.WRONG, " ", Span("failed", "bad"), said), indent=2))
    lines += [Line(_verdict(comparison)) for comparison in bench.comparisons]
    return [Lines((Line(how),)), _table(bench, verbose=verbose), Lines(tuple(lines))]


def _table(bench: Bench, *, verbose: bool) -> Table:
    columns = [Column("")]
    for number, result in enumerate(bench.results):
        ratio = [Column("ratio", right=True)] if number else []
        columns += [Column(result.label, right=True), *ratio]
    first, rows = bench.results[0], []
    kinds = sorted(first.ops, key=lambda kind: -first.ops[kind].median)
    for kind in kinds:
        rows.append((kind, *_cells([result.ops.get(kind) for result in bench.results])))
    for path in first.sublayers if verbose else ():
        spreads = [result.sublayers.get(path) for result in bench.results]
        rows.append((short_name(path), *_cells(spreads)))
    total = _cells([result.total_ns for result in bench.results])
    made: list[tuple[Words, ...]] = [*rows, (Span("all", "strong"), *total)]
    for step in first.steps:
        cells: list[str] = []
        for number, result in enumerate(bench.results):
            cells += [per_second(_rate(result, step.kind))] + [""] * bool(number)
        made.append((f"{step.kind}, {plural(step.tokens, 'token')}", *cells))
    return table(columns, made)


def _cells(spreads: list[Spread | None]) -> list[str]:
    base, cells = spreads[0], list[str]()
    for number, spread in enumerate(spreads):
        cells.append("-" if spread is None else _time(spread))
        if number:
            known = spread is not None and base is not None and base.median
            cells.append(factor(spread.median / base.median) if known else "-")  # type: ignore[union-attr]
    return cells


def _time(spread: Spread) -> str:
    return f"{duration(round(spread.median))} ±{spread.relative / 2:.0%}"


def _rate(result: Result, kind: str) -> float:
    return next((step.tokens_per_s for step in result.steps if step.kind == kind), 0.0)


def _verdict(comparison: Comparison) -> Words:
    label, base, ratio = comparison.label, comparison.base, comparison.ratio
    range_ = f"{ratio.low:.2f} to {ratio.high:.2f}"
    median, times = Span(f"{ratio.median:.2f}", "strong"), f" times ({range_}) as long as {base}"
    if comparison.verdict == "few":
        few = f"{times}; too few passes to conclude anything, use --repeat"
        return f"{label} takes ", median, few
    if comparison.verdict == "noisy":
        noisy = Span("the spread is too large to conclude anything", "warn")
        start = f"{label} takes {range_} times as long as {base}: "
        return start, noisy, "; try a quieter machine or more passes"
    if comparison.verdict == "level":
        return f"{label} takes ", median, f"{times}: no difference beyond the spread"
    return f"{label} is {comparison.verdict}: it takes ", median, times
