"""The four answers that every report gives, in this order: pass or fail, where first,
what kind of bug, how sure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from goldenctl.records.findings import Culprit
from goldenctl.records.report import BY_BUDGET, CRASHED, Report, TensorResult, worst_share
from goldenctl.records.trials import LEAST_CAUGHT, LEAST_LOCATED, LEAST_NAMED, Selftest
from goldenctl.records.uncompared import silence
from goldenctl.records.words import (
    RULES,
    Places,
    group_of,
    groups_of,
    of_tolerance,
    percent,
    plural,
    some,
    structure,
)

SURELY = 4.0
"""From this many times a rounding budget on, a tensor cannot be wrong by rounding."""
HARDLY = 10.0
"""The same for a tolerance that knows nothing of the tensor's own rounding."""
UNTOLD = "only a recorded budget (record --oracle) can tell a bug from rounding"

_UNKNOWN = "unknown: like no pattern that is known here"
_NOT_RUN = {
    "damaged": "certain: these are not the bytes that were recorded",
    "missing": "certain: something that it needs is not there",
    "error": "certain: it did not run to the end",
}
_SKETCHED = {
    "failed": "by sketch, wrong in all but 2 of 10,000 cases; diff with the golden gives numbers",
    "unsure": "a sketch cannot tell; diff with the golden itself",
}


@dataclass(frozen=True)
class Answers:
    """Each answer is a short sentence; ``where`` and what follows are empty without an error."""

    ok: bool
    verdict: str
    where: str = ""
    kind: str = ""
    sure: str = ""
    kind_is: str = "What kind of bug"

    @property
    def told(self) -> list[tuple[str, str]]:
        """The answers beside the verdict under their questions."""
        questions = ("Where first", self.kind_is, "How sure")
        pairs = zip(questions, (self.where, self.kind, self.sure), strict=True)
        return [(question, answer) for question, answer in pairs if answer]


def answers(report: Report) -> Answers:
    """Return what a report says, in words."""
    if report.selftest is not None:
        return _of_selftest(report.selftest)
    if report.command == "check":
        return _of_check(report)
    if report.ok:
        return Answers(True, _passed(report), sure=_sure_of_pass(report))
    if report.structure:
        return _of_structure(report)
    first = first_culprit(report)
    if first is None:
        return Answers(False, _failed(report))
    culprit = report.findings.culprit(first.name) if report.findings is not None else None
    return Answers(
        False,
        _failed(report),
        where=_where(report, first),
        kind=_kind(report, first, culprit),
        sure=_sure(report, first, culprit),
        kind_is="What is wrong" if first.metrics is None else Answers.kind_is,
    )


def first_culprit(report: Report) -> TensorResult | None:
    """Return the tensor that is wrong first: blame's first culprit, else the first wrong."""
    names = {culprit.name for culprit in report.culprits[:1]}
    named = next((t for t in report.tensors if t.name in names), None)
    return named or report.first_wrong


def main_group(report: Report) -> str:
    """Return the case and step that is wrong first, else the first."""
    first = None if report.ok else first_culprit(report)
    groups = groups_of(report) or [""]
    return group_of(first.name) if first is not None else groups[0]


def _of_structure(report: Report) -> Answers:
    found = structure(report)
    first, things = found[0], plural(len(found), "thing")
    right = report.compared and all(tensor.ok for tensor in report.compared)
    numbers = "every number is within tolerance" if right else _failed(report)
    op = first.first.op
    place = first.where if op == "output" else f"{first.where}.{op}"
    return Answers(
        False,
        f"{things} proved wrong by the calls; {numbers}",
        where=", ".join([place, *first.details]),
        kind=first.first.text,
        sure="proved by what the engine's calls read, without any tolerance",
    )


def _passed(report: Report) -> str:
    share = percent(worst_share(report.compared))
    count = plural(len(report.compared), "tensor")
    sublayers = plural(len(report.sublayers), "sublayer")
    silent = silence(report)
    rest = f"; {silent};" if silent else ""
    return f"{count} of {sublayers}{rest} within tolerance, at most {share} of it used"


def _failed(report: Report) -> str:
    if not report.compared:
        return "nothing was compared"
    said = [wrong_of(report)]
    crashed = [sublayer for sublayer in report.sublayers if sublayer.state == CRASHED]
    lost = {tensor.name for sublayer in crashed for tensor in sublayer.tensors}
    if count := sum(culprit.name not in lost for culprit in report.culprits):
        own = "is wrong by itself" if count == 1 else "are wrong by themselves"
        said.append(f"{plural(count, 'op')} {own}")
    if crashed:
        tensors = f" ({plural(len(lost), 'tensor')} not compared)" if lost else ""
        said.append(f"{plural(len(crashed), 'sublayer')} crashed{tensors}")
    return "; ".join(said)


def wrong_of(report: Report) -> str:
    """Say how many of the compared tensors are wrong; those of a crash are not compared."""
    compared = [tensor for tensor in report.compared if tensor.state != CRASHED]
    bad = sum(not tensor.ok for tensor in compared)
    return f"{bad:,} of {plural(len(compared), 'tensor')} {'is' if bad == 1 else 'are'} wrong"


def _where(report: Report, first: TensorResult) -> str:
    place = f"{Places(report).tensor(first.name)} (op {first.op})"
    return f"{place}, worst at {first.worst}" if first.worst else place


def _kind(report: Report, first: TensorResult, culprit: Culprit | None) -> str:
    if first.metrics is None or first.state != "failed":
        return first.message or first.state
    if culprit is not None and culprit.named:
        return " or ".join(cause.title for cause in culprit.named)
    looks = culprit.looks_like if culprit is not None else ()
    if not looks:
        looks = next((p.looks_like for p in report.pictures if p.name == first.name), ())
    if first.message:
        return "; ".join([first.message, *looks[1:]])
    if culprit is not None and culprit.diagnosed:
        return culprit.summary
    if looks:
        return f"the error looks like: {'; '.join(looks)}"
    return _UNKNOWN if culprit is not None else "not looked for yet; goldenctl blame does that"


def _sure(report: Report, first: TensorResult, culprit: Culprit | None) -> str:
    if first.rule == "sketch":
        return _SKETCHED.get(first.state, "")
    if first.metrics is None or first.state != "failed":
        return "certain: there is no complete result to compare"
    if culprit is not None and culprit.named:
        cause = culprit.named[0]
        said = (
            f"reproduced: the reference with this bug explains {cause.explained:.1%} of the error"
        )
        return said + _graft(report)
    size = _size(first)
    if culprit is not None and culprit.diagnosed:
        return f"{size}; no known bug reproduces it, so this describes the error, not its cause"
    return size


def _graft(report: Report) -> str:
    graft = report.findings.graft if report.findings is not None else None
    if graft is None:
        return ""
    return (
        f"; with the golden's tensor in its place {graft.wrong_after} sublayers are wrong "
        f"instead of {graft.wrong_before}"
    )


def _size(first: TensorResult) -> str:
    if not math.isfinite(first.share):
        return "certain: NaN is not rounding"
    size = of_tolerance(first.share)
    if first.rule not in BY_BUDGET:
        return (
            f"{size}: rounding hardly does that" if first.share >= HARDLY else f"{size}; {UNTOLD}"
        )
    if first.share < SURELY:
        return f"{size}: beyond what rounding does, but near; look at the QQ plot"
    return f"{size}: rounding does not do that"


def _sure_of_pass(report: Report) -> str:
    by_policy = all(t.rule not in RULES for t in report.compared)
    return "a recorded budget (record --oracle) sees smaller bugs" if by_policy else ""


def _of_check(report: Report) -> Answers:
    goldens = dict.fromkeys(step.golden for step in report.checks)
    wrong = [step for step in report.checks if not step.ok]
    sets = plural(len(goldens), "golden set")
    if not report.checks:
        return Answers(False, "nothing was checked")
    if not wrong:
        said = f"{plural(len(report.checks), 'step')} of {sets}"
        return Answers(True, "; ".join(filter(None, [said, silence(report)])))
    bad = len(dict.fromkeys(step.golden for step in wrong))
    first = wrong[0]
    tensor = first_culprit(report) if first.state == "failed" else None
    return Answers(
        False,
        f"{bad} of {sets} {'fails' if bad == 1 else 'fail'}",
        where=f"{first.golden}, step {first.step}: {first.state}",
        kind=first.said,
        sure=_sure(report, tensor, None) if tensor is not None else _NOT_RUN.get(first.state, ""),
        kind_is="What is wrong",
    )


def _of_selftest(result: Selftest) -> Answers:
    complaints = result.complaints()
    caught, named = sum(t.caught for t in result.visible), sum(t.named for t in result.visible)
    return Answers(
        result.ok,
        f"{result.dtype}: {caught} of {plural(len(result.visible), 'visible fault')} caught, "
        f"{named} named, {plural(len(result.false_alarms), 'false alarm')}",
        where=complaints[0] if complaints else "",
        kind="" if result.ok else some(complaints[1:]),
        sure=(
            f"needs {LEAST_CAUGHT:.1%} caught, {LEAST_LOCATED:.0%} located, {LEAST_NAMED:.0%} "
            "named, no false alarm, no wrong name"
        ),
    )
