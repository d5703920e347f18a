"""What one step of a check found out, and the exit code of them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from goldenctl.errors import (
    EXIT_BEYOND_TOLERANCE,
    EXIT_DAMAGED,
    EXIT_MISSING,
    EXIT_OK,
    EXIT_USAGE,
    GoldenctlError,
)
from goldenctl.places import short_name
from goldenctl.records.checks import CheckStep
from goldenctl.records.report import Provenance, Report, worst_share
from goldenctl.records.uncompared import not_compared
from goldenctl.records.words import not_judged, of_tolerance, structure

INTEGRITY, RECORD, REPLAY = "integrity", "record", "replay"
PASSED, FAILED, MISSING, DAMAGED, ERROR = "passed", "failed", "missing", "damaged", "error"
_CODES = {
    PASSED: EXIT_OK,
    FAILED: EXIT_BEYOND_TOLERANCE,
    ERROR: EXIT_USAGE,
    MISSING: EXIT_MISSING,
    DAMAGED: EXIT_DAMAGED,
}
# The worst first: nothing can be said of damaged data, or of data that is not there.
_WORST = (EXIT_DAMAGED, EXIT_MISSING, EXIT_USAGE, EXIT_BEYOND_TOLERANCE, EXIT_OK)
_RULES = {"digest": "same bytes"}


class Step(CheckStep, frozen=True):
    """One line of a check, with the report that it is made from."""

    report: Report | None = None

    @property
    def line(self) -> CheckStep:
        """The step without its report."""
        return CheckStep(*(getattr(self, name) for name in CheckStep.__struct_fields__))


def exit_code(steps: Sequence[Step]) -> int:
    """The worst of all: 4 damaged, 3 missing, 2 wrong usage, 1 beyond tolerance, 0."""
    codes = {_CODES[step.state] for step in steps}
    return next((code for code in _WORST if code in codes), EXIT_MISSING)


def of_error(golden: str, step: str, error: GoldenctlError) -> Step:
    """Return the step that an error ended."""
    states = {EXIT_MISSING: MISSING, EXIT_DAMAGED: DAMAGED}
    return Step(golden, step, states.get(error.exit_code, ERROR), said=str(error))


def of_report(golden: str, step: str, report: Report, *, said: str = "") -> Step:
    """Return the step whose verdict is ``report``."""
    counts: dict[str, int] = {}
    for tensor in report.compared:
        rule = tensor.rule or tensor.state
        counts[rule] = counts.get(rule, 0) + 1
    judged_by = ", ".join(f"{count} {_RULES.get(rule, rule)}" for rule, count in counts.items())
    share = worst_share(report.compared)
    if report.ok:
        lacking = not_compared(report)
        found = "; ".join(filter(None, [said, lacking, not_judged(report)]))
        return Step(golden, step, PASSED, judged_by, share, found, lacking, report)
    return Step(golden, step, FAILED, judged_by, share, _first_wrong(report), report=report)


def _first_wrong(report: Report) -> str:
    if report.structure:
        return str(structure(report)[0])
    first = report.first_wrong
    if first is None:
        return "nothing was compared"
    wrong = sum(not tensor.ok for tensor in report.compared)
    where = f"{short_name(first.sublayer) or first.sublayer}.{first.tap}"
    why = first.message
    if not why and first.metrics is not None:
        why = f"relative L2 {first.metrics.rel_l2:.2g}, {of_tolerance(first.share)}"
    worst = f" at {first.worst}" if first.worst else ""
    return f"{wrong} of {len(report.compared)} wrong, first {where}: {why}{worst}"


def report_of(steps: Sequence[Step]) -> Report:
    """Return a check as one report: all steps, and the tensors of the one that is wrong first,
    else of the one that used most of its tolerance."""
    judged = [step for step in steps if step.report is not None]
    wrong = [step for step in judged if not step.ok]
    by_share = sorted(judged, key=lambda step: -(step.share or 0.0))
    shown = next((step.report for step in (*wrong, *by_share) if step.report is not None), None)
    checks = tuple(step.line for step in steps)
    return replace(shown or _NOTHING, command="check", checks=checks)


def _nowhere(kind: str) -> Provenance:
    return Provenance(
        path="", kind=kind, created_utc="", tool_version="", content_digest="", recipe={}
    )


_NOTHING = Report(golden=_nowhere("golden"), run=_nowhere("run"), policy="", mode="", sublayers=())

Results = list[Step]


@contextlib.contextmanager
def caught(golden: str, step: str, results: Results) -> Iterator[None]:
    """Turn an error that a user can act on into the step's result."""
    try:
        yield
    except GoldenctlError as error:
        results.append(of_error(golden, step, error))
