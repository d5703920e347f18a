"""Cases and steps, sublayers and tensors with their numbers."""

from __future__ import annotations

from collections.abc import Iterator

from goldenctl.places import short_name
from goldenctl.records.report import (
    CRASHED,
    NEUTRAL,
    PASSED,
    Report,
    SublayerResult,
    TensorResult,
    worst_share,
)
from goldenctl.records.words import (
    Places,
    duration,
    group_of,
    groups_of,
    percent,
    ratio,
    reasons_of,
    sides_of,
    stands_for,
    used,
    used_by,
)
from goldenctl.report.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Fold,
    Heading,
    Line,
    Lines,
    Mark,
    Section,
    Span,
    Words,
    numbers,
    table,
)
from goldenctl.report.measures import BRIEF, COSINE, MEASURES, REL_L2, of_logits
from goldenctl.report.sections.choice import Choice
from goldenctl.report.sections.course import times_of

_MOST_WRONG = 50


def cases(report: Report, _choice: Choice) -> Section:
    """Return one line for each case and step, where there are several, and why each is there."""
    groups, blocks = groups_of(report), list[Block]()
    if len(groups) > 1:
        counts = numbers("tensors", "wrong", "used")
        rows = (_case(report, group) for group in groups)
        blocks.append(table(("", "case", *counts, "first wrong"), rows))
    reasons = reasons_of(report)
    wrong = {group_of(s.name).partition("/")[0] for s in report.sublayers if s.state != PASSED}
    told = [f"{name}: {why}" for name, why in reasons.items() if name in wrong]
    if told and len(groups) > 1:
        blocks.append(Lines(tuple(Line(Span(said, "soft"), indent=2) for said in told)))
    if reasons:
        pairs = tuple((name, why) for name, why in reasons.items())
        blocks.append(Fold("What each case is there to show", (Facts(pairs),), open=True))
    return Section("cases", "Cases and steps", tuple(blocks))


def _case(report: Report, group: str) -> tuple[Words, ...]:
    sublayers = [s for s in report.sublayers if group_of(s.name) == group]
    tensors = [t for s in sublayers for t in s.tensors if t.state not in NEUTRAL]
    wrong = [t for t in tensors if not t.ok]
    return (
        Mark.of(all(s.state == PASSED for s in sublayers)),
        Span(Places(report).group(group), "code"),
        f"{len(tensors):,}",
        f"{len(wrong):,}",
        percent(worst_share(tensors)),
        Span(f"{short_name(wrong[0].sublayer)}.{wrong[0].tap}", "code") if wrong else "",
    )


def wrong(report: Report, _choice: Choice) -> Section:
    """Return the tensors that are wrong, the first first."""
    found = [t for t in report.compared if not t.ok and t.state != CRASHED]
    places = Places(report)
    if not found or not report.sublayers:
        return Section("wrong", "What is wrong", ())
    rows = [
        (
            Span(places.tensor(tensor.name), "code"),
            tensor.state,
            used(tensor),
            REL_L2.said(tensor.metrics),
            COSINE.said(tensor.metrics),
            tensor.worst or tensor.message,
        )
        for tensor in found[:_MOST_WRONG]
    ]
    scores = numbers("used", REL_L2.title, COSINE.title)
    made = table(("tensor", "state", *scores, "worst at"), rows)
    left = len(found) - len(rows)
    more = (Lines((Line(f"... and {left:,} more"),)),) if left else ()
    return Section("wrong", "What is wrong", (made, *more), outputs=("markdown",))


def sublayers(report: Report, choice: Choice) -> Section:
    """Return one line for each sublayer."""
    title, groups = "All sublayers", groups_of(report)
    asked = choice.worst is not None or choice.every
    unasked = report.findings is not None or (report.ok and len(groups) > 1 and not asked)
    if not report.sublayers or (choice.brief and unasked):
        return Section("sublayers", title, ())
    sides, places, found = sides_of(report), Places(report), _chosen(report, choice)
    rows: list[tuple[Cell | Words, ...]] = [
        (
            _mark_of(sublayer),
            Cell(Span(places.sublayer(sublayer.name), "code"), sublayer.first_wrong),
            used_by(sublayer),
            *_scores(stands_for(sublayer)),
            *(_times(sublayer) if choice.timed else ()),
        )
        for sublayer in found
    ]
    columns = [*numbers("used", REL_L2.title), *numbers(COSINE.title, spare=3)]
    columns += [*numbers(*sides, spare=1), *numbers("ratio", spare=2)] if choice.timed else []
    caption = times_of(sides) if choice.timed and any(s.actual_ns for s in found) else ""
    made = (table(("", "sublayer", *columns), rows, caption),)
    return Section("sublayers", title, made, folded=True, outputs=("console", "markdown"))


def _times(sublayer: SublayerResult) -> tuple[str, ...]:
    expected, actual = sublayer.expected_ns, sublayer.actual_ns
    return duration(expected), duration(actual), ratio(actual, expected)


def _scores(shown: TensorResult | None) -> Iterator[str]:
    metrics = shown.metrics if shown is not None else None
    return (measure.said(metrics) for measure in (REL_L2, COSINE))


def _chosen(report: Report, choice: Choice) -> list[SublayerResult]:
    """The sublayers to show. Of several cases and steps, only the first that is wrong."""
    found = [s for s in report.sublayers if any(choice.matches(t.name) for t in s.tensors)]
    if not any(s.tensors for s in report.sublayers):
        found = list(report.sublayers)
    if choice.worst is not None:
        return sorted(found, key=lambda s: -worst_share(list(s.tensors)))[: choice.worst]
    first = report.first_wrong
    if not choice.every and first is not None and len(groups_of(report)) > 1:
        return [s for s in found if group_of(s.name) == group_of(first.name)]
    return found


def every(report: Report, choice: Choice) -> Section:
    """Return every tensor of the sublayers that are shown; a page has a table of its own."""
    blocks: list[Block] = []
    for sublayer in [] if choice.brief else _chosen(report, choice):
        tensors = [tensor for tensor in sublayer.tensors if choice.matches(tensor.name)]
        logits = next((t.logits for t in tensors if t.logits is not None), None)
        caption = of_logits(logits) if logits is not None else ""
        columns = [*numbers("used"), *_measures()]
        made = table(("", "tensor", "rule", *columns), map(_tensor, tensors), caption)
        blocks += [Heading(Places(report).sublayer(sublayer.name)), made]
    return Section("tensors", "Tensors", tuple(blocks), outputs=("console",))


def _measures() -> list[Column]:
    """A column for each measure; a narrow terminal keeps the most telling ones."""
    return [Column(m.title, right=True, spare=int(m not in BRIEF)) for m in MEASURES]


def _tensor(tensor: TensorResult) -> tuple[Words, ...]:
    mark = Mark.NEITHER if tensor.state in NEUTRAL else Mark.of(tensor.ok)
    measured = (measure.said(tensor.metrics) for measure in MEASURES)
    return mark, tensor.tap, tensor.rule or tensor.state, used(tensor), *measured


def _mark_of(sublayer: SublayerResult) -> Mark:
    nothing = sublayer.tensors and all(t.state in NEUTRAL for t in sublayer.tensors)
    passed = sublayer.state == PASSED
    return Mark.NEITHER if nothing and passed else Mark.of(passed)


SECTIONS = (cases, wrong, sublayers, every)
