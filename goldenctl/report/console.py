"""Owns a report on the terminal: the verdict, where first, then a table of sublayers."""

from __future__ import annotations

import math

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from goldenctl.diff.report import (
    NEUTRAL,
    PASSED,
    WARN_SHARE,
    Report,
    SublayerResult,
    TensorResult,
    worst_share,
)
from goldenctl.errors import printable
from goldenctl.golden.schema import short_name


def print_report(
    report: Report,
    console: Console | None = None,
    *,
    worst: int | None = None,
    verbose: bool = False,
) -> None:
    """Print a report; ``worst`` shows that many sublayers, worst first; ``verbose`` adds
    every tensor of them."""
    (console or Console(highlight=False)).print(view(report, worst=worst, verbose=verbose))


def view(report: Report, *, worst: int | None = None, verbose: bool = False) -> RenderableType:
    """Return the report as something rich can print, at 80 columns or more."""
    parts: list[RenderableType] = []
    if report.simulated:
        parts.append(Text("SIMULATED: no engine computed these outputs", style="bold yellow"))
    if report.faults:
        parts.append(Text(f"INJECTED FAULTS: {printable(', '.join(report.faults))}", "bold yellow"))
    parts += [Text.from_markup(line) for line in _verdict(report)]
    sublayers = list(report.sublayers)
    if worst is not None:
        sublayers = sorted(sublayers, key=lambda s: -worst_share(list(s.tensors)))[:worst]
    parts += [Text(), _table(report, sublayers)]
    if verbose:
        parts += [_tensor_table(s) for s in sublayers]
    return Group(*parts)


def _verdict(report: Report) -> list[str]:
    compared = report.compared
    bad = sum(not tensor.ok for tensor in compared)
    lines = []
    if report.ok:
        share = worst_share(compared)
        head = f"[bold green]✓ PASS[/]  {len(compared)} tensors of {len(report.sublayers)}"
        lines.append(f"{head} sublayers within tolerance, at most {_percent(share)} of it used")
        near = [t for t in compared if t.share >= WARN_SHARE]
        if near:
            lines.append(f"  {len(near)} use more than {_percent(WARN_SHARE)}: {_names(near)}")
    elif not compared:
        lines.append("[bold red]✗ FAIL[/]  nothing was compared")
    else:
        lines.append(f"[bold red]✗ FAIL[/]  {bad} of {len(compared)} tensors are wrong")
    first = report.first_wrong
    if first is not None:
        lines += _first_wrong(first)
    skipped = [t for t in report.tensors if t.state == "not_computed"]
    if skipped:
        taps = ", ".join(dict.fromkeys(t.tap for t in skipped))
        lines.append(f"  not computed by this backend, so not judged: {_clean(taps)}")
    lines.append(f"  rule: {_rules(report)}; mode: {_clean(report.mode)}")
    return lines


def _first_wrong(first: TensorResult) -> list[str]:
    where = f"{short_name(first.sublayer) or first.sublayer}.{first.tap}"
    lines = [f"  first wrong: [bold]{_clean(where)}[/] (op {_clean(first.op)})"]
    if first.message:
        lines.append(f"  {_clean(first.message)}")
    elif first.metrics is not None:
        used = f"{first.share:.3g} times its tolerance"
        m = first.metrics
        lines.append(f"  {used}: relative L2 {m.rel_l2:.2e}, cosine {m.cosine:.6f}")
    if first.worst:
        lines.append(f"  worst at {_clean(first.worst)}")
    return lines


def _table(report: Report, sublayers: list[SublayerResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("sublayer", overflow="fold", min_width=19)
    for title in ("used", "rel L2", "cosine", "golden", "run", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    many_cases = len({s.name.split("/")[1] for s in report.sublayers}) > 1
    for sublayer in sublayers:
        label = short_name(sublayer.name)
        if many_cases:
            label = f"{sublayer.name.split('/')[1]}: {label}"
        if sublayer.first_wrong:
            label += f" ({sublayer.first_wrong})"
        shown = _shown(sublayer)
        ok = sublayer.state == PASSED
        table.add_row(
            Text("✓", "green") if ok else Text("✗", "bold red"),
            escape(printable(label)),
            _percent(sublayer.share),
            *_numbers(shown)[:2],
            _ns(sublayer.expected_ns),
            _ns(sublayer.actual_ns),
            _ratio(sublayer.actual_ns, sublayer.expected_ns),
        )
    return table


def _tensor_table(sublayer: SublayerResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = Text(f"\n{printable(short_name(sublayer.name))}", "bold")
    table.add_column("")
    for title in ("tensor", "rule"):
        table.add_column(title)
    for title in ("used", "rel L2", "cosine", "max ULP"):
        table.add_column(title, justify="right", no_wrap=True)
    for tensor in sublayer.tensors:
        cells = (_clean(tensor.tap), _clean(tensor.rule or tensor.state), _percent(tensor.share))
        table.add_row(_mark(tensor), *cells, *_numbers(tensor))
    return table


def _mark(tensor: TensorResult) -> Text:
    if tensor.state in NEUTRAL:
        return Text("-", "dim")
    return Text("✓", "green") if tensor.ok else Text("✗", "bold red")


def _shown(sublayer: SublayerResult) -> TensorResult | None:
    """The tensor whose numbers stand for the sublayer: the first wrong, else the worst."""
    wrong = [t for t in sublayer.tensors if t.tap == sublayer.first_wrong]
    scored = [t for t in sublayer.tensors if t.metrics is not None]
    return next(iter(wrong), None) or max(scored, key=lambda t: t.share, default=None)


def _numbers(tensor: TensorResult | None) -> tuple[str, str, str]:
    if tensor is None or tensor.metrics is None:
        return ("-", "-", "-")
    m = tensor.metrics
    return (f"{m.rel_l2:.1e}", f"{m.cosine:.6f}", f"{m.max_ulp:,}" if m.max_ulp < 1e9 else "huge")


def _rules(report: Report) -> str:
    counts: dict[str, int] = {}
    for tensor in report.tensors:
        if tensor.rule:
            counts[tensor.rule] = counts.get(tensor.rule, 0) + 1
    words = {"budget": "recorded rounding budget", "truth": "recorded truth"}
    said = [f"{words.get(rule, f'tolerance {rule}')} ({n})" for rule, n in counts.items()]
    return _clean(", ".join(said) or report.policy)


def _names(tensors: list[TensorResult]) -> str:
    names = [f"{short_name(t.sublayer)}.{t.tap}" for t in tensors[:3]]
    return _clean(", ".join(names) + (", ..." if len(tensors) > 3 else ""))


def _percent(share: float) -> str:
    if not math.isfinite(share) or share >= 100:
        return ">9999%"
    return f"{share:.0%}"


def _ns(ns: int) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns} ns" if ns else "-"


def _ratio(actual: int, expected: int) -> str:
    return f"{actual / expected:.2g}x" if actual and expected else "-"


def _clean(text: str) -> str:
    return escape(printable(text))
