"""The course of a run: how its error grows, its times, whether it depends on more than inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from goldenctl.diff.localize import AMPLIFIES
from goldenctl.places import short_name
from goldenctl.records.determinism import Determinism
from goldenctl.records.findings import Depth, Graft
from goldenctl.records.report import Report, StepTime
from goldenctl.records.units import factor, per_second
from goldenctl.records.words import (
    NOISE_NS,
    Places,
    duration,
    group_of,
    groups_of,
    plural,
    ratio,
    sides_of,
)
from goldenctl.report import figures
from goldenctl.report.answers import main_group
from goldenctl.report.blocks import (
    Block,
    Drawing,
    Facts,
    Fold,
    Line,
    Lines,
    Mark,
    Section,
    Span,
    Style,
    Words,
    numbers,
    table,
)
from goldenctl.report.sections.choice import Choice

_MOST_STEPS = 100
_COLUMNS = {
    "isolated": "relative L2 error of the output, from the golden's input",
    "inherited": "of what came in along the chain",
    "chained": "of what went out along the chain",
    "growth": "chained over inherited",
}
_WORDS = {
    "culprit": "wrong though its input is right",
    "victim": "right by itself, only its input is wrong",
    "amplifier": f"made an inherited error at least {AMPLIFIES:g} times as large",
    "healed": "right again, though its input was wrong",
}
_STYLES: dict[str, Style] = {
    "culprit": "bad", "amplifier": "warn", "victim": "soft", "healed": "good",
}  # fmt: skip


def depth(report: Report, choice: Choice) -> Section:
    """Return how the error grows from sublayer to sublayer, and what the graft showed."""
    main, findings, places = main_group(report), report.findings, Places(report)
    found = [
        each
        for each in (findings.depths if findings is not None else ())
        if choice.matches(each.name) and (choice.every or group_of(each.name) == main)
    ]
    errors = numbers("isolated", "inherited", "chained", "growth")
    made = table(("sublayer", *errors, "part"), (_depth(each, places) for each in found))
    blocks: list[Block] = [Drawing(figures.depth(report, main), (made,) if found else ())]
    if found:
        words = {word: said for word, said in _WORDS.items() if word in {d.word for d in found}}
        blocks.append(Facts(tuple((_COLUMNS | words).items())))
    if findings is not None and findings.graft is not None and findings.graft.wrong_before:
        blocks.append(Lines((Line(_graft(findings.graft, len(findings.culprits))),)))
    hint = "How wrong each sublayer's output is, fed with the golden's input (isolated)"
    hint += " or with what came before (chained)."
    return Section("depth", "Error along depth", tuple(blocks), hint)


def _depth(found: Depth, places: Places) -> tuple[Words, ...]:
    grew = factor(found.amplification) if math.isfinite(found.amplification) else "-"
    every = (found.local, found.inherited, found.chained)
    errors = (f"{x:.1e}" if math.isfinite(x) else "-" for x in every)
    word = Span(found.word, _STYLES.get(found.word, ""))
    return Span(places.sublayer(found.name), "code"), *errors, grew, word


def _graft(graft: Graft, culprits: int) -> str:
    line = (
        f"graft: the chain once more, with the golden's tensor in place of "
        f"{plural(culprits, 'culprit')}: {plural(graft.wrong_after, 'wrong sublayer')} "
        f"instead of {graft.wrong_before}"
    )
    if graft.top1 is not None and graft.top1[0] != graft.top1[1]:
        golden, before, after = graft.top1
        line += f"; top-1 token {before} → {after}, golden {golden}: {graft.top1_state}"
    return line


def times(report: Report, choice: Choice) -> Section:
    """Return the times of both sides: of all prefills and decode steps, by op, by step."""
    sides = sides_of(report)
    expected = sum(s.expected_ns for s in report.sublayers)
    actual = sum(s.actual_ns for s in report.sublayers)
    if not choice.timed:
        return Section("times", "Times", ())
    total = (
        f"All sublayers: {sides[0]} {duration(expected)}, {sides[1]} {duration(actual)}, "
        f"{ratio(actual, expected)}. {times_of(sides)}"
    )
    blocks: list[Block] = [Lines(lines)] if (lines := tuple(_kinds(report.steps, sides))) else []
    drawn = figures.op_times(report)
    blocks += [Drawing(drawn)] if drawn is not None else []
    if report.steps:
        columns = numbers("tokens", sides[0], "tokens/s", sides[1], "tokens/s", "ratio")
        made = table(("step", *columns), map(_step, report.steps[:_MOST_STEPS]))
        left = len(report.steps) - _MOST_STEPS
        more = (Lines((Line(f"and {left:,} more steps"),)),) if left > 0 else ()
        blocks.append(Fold("Each step", (made, *more)))
    return Section("times", "Times", tuple(blocks), total)


def times_of(sides: tuple[str, str]) -> str:
    """Say what times are and what their ratio is worth."""
    return (
        f"Times were taken once, of the {sides[0]} when it was recorded, perhaps elsewhere; "
        f"ratio is {sides[1]} over {sides[0]}, where both took {duration(NOISE_NS)} or more. "
        "goldenctl bench compares backends."
    )


def _kinds(steps: Sequence[StepTime], names: tuple[str, str]) -> list[Line]:
    """A line on all prefills and one on all decode steps whose times were taken."""
    timed = [step for step in steps if step.expected_ns or step.actual_ns]
    kinds = {
        "prefill": [step for step in timed if not step.decodes],
        "decode": [step for step in timed if step.decodes],
    }
    return [_kind(kind, chosen, names) for kind, chosen in kinds.items() if chosen]


def _kind(kind: str, steps: Sequence[StepTime], names: tuple[str, str]) -> Line:
    total = StepTime(
        step="",
        tokens=sum(step.tokens for step in steps),
        expected_ns=sum(step.expected_ns for step in steps),
        actual_ns=sum(step.actual_ns for step in steps),
    )
    sides = [
        f"{side} {duration(ns)} ({per_second(rate)})"
        for side, ns, rate in (
            (names[0], total.expected_ns, total.expected_per_s),
            (names[1], total.actual_ns, total.actual_per_s),
        )
        if ns
    ]
    times = ratio(total.actual_ns, total.expected_ns)
    both = f", {times}" if times != "-" else ""
    said = f"time of {kind}, {plural(total.tokens, 'token')}: {', '.join(sides)}{both}"
    return Line(said, indent=2)


def _step(step: StepTime) -> tuple[str, ...]:
    rates = ((step.expected_ns, step.expected_per_s), (step.actual_ns, step.actual_per_s))
    sides = [cell for ns, rate in rates for cell in (duration(ns), f"{rate:,.4g}" if ns else "-")]
    return step.step, str(step.tokens), *sides, ratio(step.actual_ns, step.expected_ns)


def determinism(report: Report, _choice: Choice) -> Section:
    """Return what passes in other orders and over other memory showed."""
    found = report.determinism
    many = len(groups_of(report)) > 1
    blocks = (passes(found, many_cases=many, indent=2),) if found is not None else ()
    return Section("determinism", "Determinism", blocks)


def passes(found: Determinism, *, many_cases: bool, indent: int = 0) -> Lines:
    """Return how many passes there were and what is not the same in all."""
    count = sum(found.passes.values())
    made = ", ".join(f"{number} {kind}" for kind, number in found.passes.items())
    lines = []
    if not found.findings:
        same = f": the same bits in {count} passes ({made})"
        lines.append(Line((Mark.RIGHT, " ", Span("deterministic", "good"), same), indent=indent))
    for finding in found.findings:
        group = f"{'/'.join(finding.sublayer.split('/')[1:4:2])}: " if many_cases else ""
        where = Span(f"{group}{short_name(finding.sublayer)}.{finding.tap}", "strong")
        said = (Mark.WRONG, " ", Span(", ".join(finding.classes), "bad"), ": ", where)
        lines.append(Line(said, (finding.note,) if finding.note else (), indent))
    if found.findings:
        lines.append(Line(f"in {count} passes: {made}", indent=indent))
    if not found.poisons:
        unseen = "the backend does not take --poison, so uninitialised reads were not looked for"
        lines.append(Line(unseen, indent=indent))
    return Lines(tuple(lines))


SECTIONS = (depth, determinism, times)
