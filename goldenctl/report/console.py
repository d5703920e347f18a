"""A report on the terminal: the verdict, where first, then a table of sublayers.

Made for 80 columns; in a pipe lines are as long as they need to be.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from goldenctl.errors import printable
from goldenctl.places import short_name
from goldenctl.records.report import (
    BY_BUDGET,
    CRASHED,
    NEUTRAL,
    PASSED,
    WARN_SHARE,
    Report,
    SublayerResult,
    TensorResult,
    worst_share,
)
from goldenctl.records.uncompared import not_compared
from goldenctl.records.words import (
    Matcher,
    Places,
    banners,
    dtypes,
    duration,
    group_of,
    groups_of,
    left_out,
    matcher,
    not_judged,
    of_tolerance,
    percent,
    plural,
    ratio,
    reasons_of,
    rules,
    sides_of,
    some,
    stands_for,
    structure,
    used,
    used_by,
)
from goldenctl.report.answers import HARDLY, UNTOLD
from goldenctl.report.blocks import Block, Section
from goldenctl.report.console_blame import findings_view
from goldenctl.report.console_parts import clean, indented, make_console, unbroken
from goldenctl.report.console_table import Row, SublayerTable
from goldenctl.report.measures import BRIEF, COSINE, MEASURES, REL_L2, ROOM, at_worst, of_logits
from goldenctl.report.notes import note_lines
from goldenctl.report.render_console import rendered
from goldenctl.report.sections import checks, course, sections
from goldenctl.report.sections.choice import ALL
from goldenctl.report.sections.verdict import in_short
from goldenctl.report.structure import by_themselves, headline
from goldenctl.report.timing import step_lines

_MOST_FINDINGS = 12


def print_report(
    report: Report,
    console: Console | None = None,
    *,
    worst: int | None = None,
    verbose: bool = False,
    only: str | None = None,
) -> None:
    """Print a report; ``worst`` shows that many sublayers, worst first; ``verbose`` adds
    every tensor of them; ``only`` leaves out what its pattern does not match.

    On a terminal what is longer than the screen ends in the verdict once more."""
    console = console or make_console()
    shown = view(report, worst=worst, verbose=verbose, only=only)
    console.print(shown, crop=False)
    first = report.first_wrong
    scrolled = console.is_terminal and len(console.render_lines(shown)) >= console.height
    if scrolled and first is not None and report.command != "check":
        where = clean(Places(report).tensor(first.name))
        console.print(f"{_headline(report)}, first [bold]{where}[/]")


def view(
    report: Report, *, worst: int | None = None, verbose: bool = False, only: str | None = None
) -> RenderableType:
    """Return the report as something rich can print, at 80 columns or more, with ``crop=False``."""
    if report.selftest is not None:
        return Group(*rendered([in_short(report), *sections(report)], verbose=verbose))
    checked: tuple[Block | Section, ...] = (
        (checks.checks(report, ALL), in_short(report)) if report.checks else ()
    )
    parts: list[RenderableType] = list(rendered(checked))
    if report.command == "check" and report.checks and not verbose:
        return Group(*parts)
    parts += [Text()] if parts else []
    parts += [Text(line, "bold yellow") for line in banners(report)]
    matches = matcher(only)
    if report.findings is not None:
        parts += indented(_structure(report))
        every = verbose or only is not None
        parts.append(findings_view(report, matches, every=every, verbose=verbose))
        return Group(*parts, *_details(report, matches) if verbose else ())
    parts += indented(_structure(report))
    parts += indented(_verdict(report))
    parts += indented(step_lines(report))
    parts += rendered([course.determinism(report, ALL)])
    groups = groups_of(report)
    if len(groups) > 1:
        parts += [Text(), _group_table(report, groups), *_reasons(report)]
    if len(groups) <= 1 or verbose or worst or only or not report.ok:
        sublayers = _chosen(report, matches, worst, every=verbose or bool(only))
        parts += [Text(), _table(report, sublayers), *_crashed(report)]
        if verbose:
            parts += [_tensor_table(report, s, matches) for s in sublayers]
    return Group(*parts)


def _structure(report: Report) -> Iterator[str]:
    """What a trace proves comes before any number."""
    found = structure(report)
    for said in found[:_MOST_FINDINGS]:
        yield f"[bold red]✗[/] [bold]{clean(str(said))}[/]"
        yield from (f"  {clean(line)}" for line in said.details)
    if len(found) > _MOST_FINDINGS:
        yield f"  and {len(found) - _MOST_FINDINGS} more: --json or --html has all"


def _details(report: Report, matches: Matcher) -> list[RenderableType]:
    sublayers = _chosen(report, matches, None, every=True)
    return [_tensor_table(report, sublayer, matches) for sublayer in sublayers]


def _chosen(
    report: Report, matches: Matcher, worst: int | None, *, every: bool
) -> list[SublayerResult]:
    """The sublayers to show. Of several cases and steps, only the first that is wrong."""
    sublayers = [s for s in report.sublayers if any(matches(t.name) for t in s.tensors)]
    if not report.sublayers or not any(s.tensors for s in report.sublayers):
        sublayers = list(report.sublayers)
    if worst is not None:
        return sorted(sublayers, key=lambda s: -worst_share(list(s.tensors)))[:worst]
    first = report.first_wrong
    if not every and first is not None and len(groups_of(report)) > 1:
        return [s for s in sublayers if group_of(s.name) == group_of(first.name)]
    return sublayers


def _verdict(report: Report) -> list[str]:
    compared = report.compared
    lines = []
    right = all(tensor.ok for tensor in compared)
    if compared and right and report.structure:
        lines.append(f"[bold red]✗ FAIL[/]  {headline(report)}; every number is within tolerance")
    elif report.ok:
        share = worst_share(compared)
        head = f"[bold green]✓ PASS[/]  {plural(len(compared), 'tensor')} of "
        head += plural(len(report.sublayers), "sublayer")
        if silent := not_compared(report):  # before all that may be on the next line
            head += f"; [bold yellow]{clean(silent)}[/];"
        lines.append(f"{head} within tolerance, at most {percent(share)} of it used")
        near = [t for t in compared if t.share >= WARN_SHARE]
        if near:
            lines.append(f"  {len(near)} use more than {percent(WARN_SHARE)}: {_names(near)}")
    elif not compared:
        lines.append("[bold red]✗ FAIL[/]  nothing was compared")
    else:
        lines.append(_headline(report))
    first = report.first_wrong
    if first is not None:
        lines += _first_wrong(report, first)
    if report.trace is not None:
        own = by_themselves(report)
        told = [*filter(None, [own]), *report.trace.lines()]
        lines += [f"  {clean(line)}" for line in told]
    skipped = dict.fromkeys(t.tap for t in report.tensors if t.state == "not_computed")
    if skipped:
        taps = ", ".join(skipped)
        lines.append(f"  not computed by this backend, so not judged: {clean(taps)}")
    if unjudged := not_judged(report):
        lines.append(f"  [yellow]{clean(unjudged)}[/]")
    said = dict.fromkeys(t.message for t in compared if t.ok and t.message)
    lines += [f"  {clean(line)}" for line in said]
    lines += [f"  [yellow]{clean(line)}[/]" for line in note_lines(report)]
    absent = sum(tensor.absent_rows for tensor in report.tensors)
    if absent:
        lines.append(f"  not computed by the engine, so not judged: {plural(absent, 'row')}")
    if report.padding_rows:
        lines.append(f"  left out: {plural(report.padding_rows, 'row')} of padding tokens")
    judged = [rules(report), f"mode: {report.mode}", *filter(None, [dtypes(report)])]
    lines.append(f"  rule: {clean('; '.join(judged))}")
    if left_out(report):
        lines.append(f"  {left_out(report)}")
    if report.run.kind == "golden":
        lines += what_differs(report.differs)
    return lines


def _headline(report: Report) -> str:
    bad = sum(not tensor.ok for tensor in report.compared)
    return f"[bold red]✗ FAIL[/]  {bad:,} of {len(report.compared):,} tensors are wrong"


def what_differs(differs: Sequence[str]) -> list[str]:
    """Return lines that say what else is not the same of two goldens."""
    first, *rest = differs or ("nothing that a recipe names",)
    return [f"  what differs: {clean(first)}", *(f"    {clean(line)}" for line in rest)]


def _first_wrong(report: Report, first: TensorResult) -> list[str]:
    where = Places(report).tensor(first.name)
    lines = [f"  first wrong: [bold]{clean(where)}[/] (op {clean(first.op)})"]
    if first.message:
        lines.append(f"  {clean(first.message)}")
    elif first.metrics is not None:
        rel_l2, cosine = first.metrics.rel_l2, first.metrics.cosine
        lines.append(
            f"  {of_tolerance(first.share)}: relative L2 {rel_l2:.2e}, cosine {cosine:.6f}"
        )
        if first.rule not in (*BY_BUDGET, "sketch") and first.share < HARDLY:
            lines.append(f"  {UNTOLD}")
    if first.worst:
        values = at_worst(first.metrics)
        lines.append(f"  worst at {clean(first.worst)}{'; ' if values else ''}{values}")
    if first.local is not None:
        own = "right" if first.local.ok else "wrong"
        used = of_tolerance(first.local.share)
        lines.append(f"  {own} by itself, {used}, from what the engine gave it")
    words = next((p.looks_like for p in report.pictures if p.name == first.name), ())
    if words:
        lines.append(f"  the error looks like: {clean('; '.join(words))}")
    return lines


def _group_table(report: Report, groups: Sequence[str]) -> Table:
    """One line for each case and step."""
    places = Places(report)
    table = _plain_table("", "case", numbers=("tensors", "wrong", "used"))
    table.add_column("first wrong", overflow="fold")
    for group in groups:
        sublayers = [s for s in report.sublayers if group_of(s.name) == group]
        tensors = [t for s in sublayers for t in s.tensors if t.state not in NEUTRAL]
        wrong = [t for t in tensors if not t.ok]
        first = f"{short_name(wrong[0].sublayer)}.{wrong[0].tap}" if wrong else ""
        table.add_row(
            _state_mark(all(s.state == PASSED for s in sublayers)),
            clean(places.group(group)),
            f"{len(tensors):,}",
            f"{len(wrong):,}",
            percent(worst_share(tensors)),
            clean(first),
        )
    return table


def _reasons(report: Report) -> list[RenderableType]:
    """What the cases that are wrong are there to show."""
    wrong = {group_of(s.name).partition("/")[0] for s in report.sublayers if s.state != PASSED}
    reasons = reasons_of(report)
    told = [(clean(name), clean(why)) for name, why in reasons.items() if name in wrong]
    return list(indented(f"  [dim]{name}: {why}[/]" for name, why in told))


def _plain_table(*titles: str, numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _table(report: Report, sublayers: list[SublayerResult]) -> SublayerTable:
    places = Places(report)
    sides = sides_of(report)
    rows = []
    for sublayer in sublayers:
        shown = stands_for(sublayer)
        cells = (
            used_by(sublayer),
            *(m.said(shown.metrics if shown is not None else None) for m in (REL_L2, COSINE)),
            duration(sublayer.expected_ns),
            duration(sublayer.actual_ns),
            ratio(sublayer.actual_ns, sublayer.expected_ns),
        )
        name, mark = places.sublayer(sublayer.name), _sublayer_mark(sublayer)
        rows.append(Row(mark, name, sublayer.first_wrong, cells))
    titles = ("used", "rel L2", "cosine", *sides, "ratio")
    return SublayerTable(titles, rows, spare=(sides, ("ratio",), ("cosine",)))


def _crashed(report: Report) -> Iterator[Text]:
    """Where the reasons of sublayers that did not run to their end are: the table has no room.

    check replays into a folder that is gone afterwards, unless it is told to keep it.
    """
    count = sum(sublayer.state == CRASHED for sublayer in report.sublayers)
    said = f"{plural(count, 'sublayer')} crashed"
    what = "its reason and command" if count == 1 else "the reason and command of each"
    if count and report.command in ("diff", "verify"):
        run = printable(shlex.quote(report.run.path))
        yield unbroken(f"{said}: goldenctl inspect {run} shows {what}")
    elif count and report.command == "check":
        yield unbroken(f"{said}: with --keep FOLDER, goldenctl inspect shows why")


def _tensor_table(report: Report, sublayer: SublayerResult, matches: Matcher) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.caption_justify = "left"
    table.title = Text(f"\n{printable(Places(report).sublayer(sublayer.name))}", "bold")
    table.add_column("")
    for title in ("tensor", "rule"):
        table.add_column(title)
    measures = MEASURES if make_console().width >= ROOM else BRIEF
    for title in ("used", *(measure.title for measure in measures)):
        table.add_column(title, justify="right", no_wrap=True)
    for tensor in sublayer.tensors:
        if matches(tensor.name):
            cells = (clean(tensor.tap), clean(tensor.rule or tensor.state), used(tensor))
            measured = (measure.said(tensor.metrics) for measure in measures)
            table.add_row(_mark(tensor), *cells, *measured)
            if tensor.logits is not None:
                table.caption = Text(of_logits(tensor.logits), "dim")
    return table


def _mark(tensor: TensorResult) -> Text:
    return Text("-", "dim") if tensor.state in NEUTRAL else _state_mark(tensor.ok)


def _sublayer_mark(sublayer: SublayerResult) -> Text:
    nothing = sublayer.tensors and all(t.state in NEUTRAL for t in sublayer.tensors)
    passed = sublayer.state == PASSED
    return Text("-", "dim") if nothing and passed else _state_mark(passed)


def _state_mark(ok: bool) -> Text:
    return Text("✓", "green") if ok else Text("✗", "bold red")


def _names(tensors: list[TensorResult]) -> str:
    return clean(some(f"{short_name(t.sublayer)}.{t.tap}" for t in tensors))
