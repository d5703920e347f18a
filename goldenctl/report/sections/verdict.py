"""The verdict, what must be known before it, and what must be known beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from goldenctl.places import short_name
from goldenctl.records.report import BY_BUDGET, WARN_SHARE, Report, TensorResult
from goldenctl.records.uncompared import silence
from goldenctl.records.words import (
    Places,
    dtypes,
    left_out,
    not_judged,
    of_tolerance,
    percent,
    plural,
    rules,
    some,
    structure,
)
from goldenctl.report.answers import HARDLY, UNTOLD, answers
from goldenctl.report.blocks import Line, Lines, Mark, Section, Span, Words
from goldenctl.report.measures import at_worst
from goldenctl.report.sections.choice import Choice

_MOST_FINDINGS = 12


def verdict(report: Report) -> Line:
    """Return pass or fail and why, what a pass is silent about in another colour."""
    said = answers(report)
    word = Span("PASS", "good") if said.ok else Span("FAIL", "bad")
    before, silent, after = said.verdict, silence(report) if said.ok else "", ""
    if silent:
        before, silent, after = before.partition(silent)
    return Line((Mark.of(said.ok), " ", word, f"  {before}", Span(silent, "warn"), after))


def proved(report: Report, choice: Choice) -> Section:
    """Return what the calls of a traced engine prove to be wrong, without any tolerance."""
    found = structure(report)
    shown = found[:_MOST_FINDINGS] if choice.brief else found
    lines = [Line((Mark.WRONG, " ", Span(str(said), "strong")), said.details) for said in shown]
    if len(shown) < len(found):
        more = f"and {len(found) - len(shown)} more: --verbose, --json or --html has all"
        lines.append(Line(more, indent=2))
    hint = "Proved by what the engine's calls read: no tolerance is involved."
    return Section("structure", "Structure", (Lines(tuple(lines)),) if lines else (), hint)


def first_wrong(report: Report) -> Iterator[Words]:
    """Yield where it is wrong first and the numbers of that tensor."""
    first = report.first_wrong
    if first is None:
        return
    where = Span(Places(report).tensor(first.name), "strong")
    yield "first wrong: ", where, f" (op {first.op})"
    yield from _numbers(first)
    if first.worst:
        yield "; ".join(filter(None, [f"worst at {first.worst}", at_worst(first.metrics)]))
    if first.local is not None:
        own = "right" if first.local.ok else "wrong"
        used = of_tolerance(first.local.share)
        yield f"{own} by itself, {used}, from what the engine gave it"
    words = next((p.looks_like for p in report.pictures if p.name == first.name), ())
    if words:
        yield f"the error looks like: {'; '.join(words)}"


def _numbers(first: TensorResult) -> Iterator[str]:
    if first.message:
        yield first.message
    if first.metrics is not None and first.state == "failed":
        metrics = first.metrics
        said = f"relative L2 {metrics.rel_l2:.2e}, cosine {metrics.cosine:.6f}"
        if lost := metrics.mismatches:
            said = f"NaN or Inf on one side alone in {lost:,} of {metrics.count:,} elements"
        yield f"{of_tolerance(first.share)}: {said}"
        if first.rule not in (*BY_BUDGET, "sketch") and first.share < HARDLY:
            yield UNTOLD


def warnings(report: Report) -> list[str]:
    """Return what a reader must know of the comparison: what was not judged, what is odd."""
    kinds: dict[str, list[TensorResult]] = {}
    for tensor in report.noted:
        kinds.setdefault(tensor.note.split()[0], []).append(tensor)
    places = Places(report)
    notes = [
        f"note: {plural(len(tensors), 'tensor')}, such as {places.tensor(tensors[0].name)}: "
        f"{tensors[0].note}"
        for tensors in kinds.values()
    ]
    return [*filter(None, [not_judged(report)]), *notes]


def remarks(report: Report) -> Iterator[str]:
    """Yield what the comparison was, and what of it was left out."""
    near = [t for t in report.compared if t.share >= WARN_SHARE]
    if report.ok and near:
        names = some(f"{short_name(t.sublayer)}.{t.tap}" for t in near)
        yield f"{len(near)} use more than {percent(WARN_SHARE)}: {names}"
    if report.trace is not None:
        yield from filter(None, [by_themselves(report), *report.trace.lines()])
    skipped = dict.fromkeys(t.tap for t in report.tensors if t.state == "not_computed")
    if skipped:
        yield f"not computed by this backend, so not judged: {', '.join(skipped)}"
    yield from dict.fromkeys(t.message for t in report.compared if t.ok and t.message)
    if absent := sum(tensor.absent_rows for tensor in report.tensors):
        yield f"not computed by the engine, so not judged: {plural(absent, 'row')}"
    if others := sum(tensor.other_choice_rows for tensor in report.tensors):
        rows = plural(others, "row")
        yield f"follow from other experts, which rounding alone may choose; not judged: {rows}"
    if report.padding_rows:
        yield f"left out: {plural(report.padding_rows, 'row')} of padding tokens"
    judged = [rules(report), f"mode: {report.mode}", dtypes(report)]
    yield f"rule: {'; '.join(filter(None, judged))}"
    yield from filter(None, [left_out(report)])
    if report.differs or report.run.kind == "golden":
        yield from what_differs(report.differs)


def what_differs(differs: Sequence[str]) -> Iterator[str]:
    """Yield what else is not the same of two goldens."""
    yield f"what differs: {'; '.join(differs) or 'nothing that a recipe names'}"


def by_themselves(report: Report) -> str:
    """Say how many ops of a traced engine are wrong by themselves, and how many only inherit."""
    judged = [t for t in report.tensors if t.local is not None]
    culprits = [t for t in judged if t.part == "culprit"]
    found = {(finding.place, finding.op) for finding in report.structure}
    places = [(short_name(t.sublayer), t.tap) for t in judged if t.part == "victim"]
    victims = sum(place not in found for place in places)
    if not judged:
        return ""
    said = f"{len(judged) - len(culprits):,} of {plural(len(judged), 'op')} right by themselves"
    if victims:
        verb = "inherits" if victims == 1 else "inherit"
        said += f"; {plural(victims, 'wrong one')} of these only {verb} an error"
    return said


SECTIONS = (proved,)
