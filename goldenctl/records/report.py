"""The report: the one object that every renderer reads (docs/report-schema.md).

A field that is added gets a default, so that reports written before still load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from goldenctl.places import plain_tap
from goldenctl.records.checks import CheckStep
from goldenctl.records.determinism import Determinism
from goldenctl.records.findings import Culprit, Findings
from goldenctl.records.metrics import LogitMetrics, Metrics
from goldenctl.records.pictures import Picture
from goldenctl.records.policy import Check
from goldenctl.records.structure import Finding, Local, Trace
from goldenctl.records.trials import Selftest

REPORT_VERSION = 2
READABLE_VERSIONS = (1, 2)  # the first calls its digests sha256
PASSED = "passed"
CRASHED = "crashed"
NOT_JUDGED = "not_judged"
RANDOM = "random"
# States that are neither a pass nor a failure: the backend said beforehand that it has not
# computed the tensor, no row of the reference is finite, or a module draws random numbers.
NEUTRAL = ("not_computed", NOT_JUDGED, RANDOM)
WARN_SHARE = 0.8
Nanoseconds = Annotated[int, Meta(ge=0)]
ALONE = "alone"
BY_BUDGET = ("budget", "truth", ALONE)
"""Rules that judge by what was recorded of the reference's own rounding."""


class TensorResult(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One tensor's scores and verdict.

    ``state`` is passed, failed, missing, extra, shape_mismatch, dtype_mismatch, crashed,
    not_computed, not_judged (no row of the reference is finite, and NaN and Inf are where it
    has them; or all follow from other experts), random (its module draws random numbers) or
    unsure (a sketch cannot tell). ``rule`` names what judged it (``budget``, ``truth``, ``exact``
    (of whole numbers), ``alone`` (a traced op from its own inputs), ``sketch``, ``digest`` or the
    policy), ``share`` is the part of its tolerance used, over 1 when it fails. ``note`` says what
    is odd and within tolerance, such as a bias.
    ``padding_rows`` rows are of padding tokens and were left out, ``absent_rows`` are of tokens
    that the engine did not compute this tensor for, ``not_judged_rows`` those of which the
    reference is not finite; in ``only_reference_rows`` of these the truth and the run are.
    ``other_choice_rows`` follow from other experts than the golden's, which rounding alone may
    choose. ``local`` is how a traced op was by itself, from the inputs that the engine gave it.
    """

    name: str
    sublayer: str
    tap: str
    op: str
    dtype: str
    shape: tuple[int, ...]
    actual_shape: tuple[int, ...] | None = None
    actual_dtype: str = ""
    state: str
    rule: str = ""
    share: float = 0.0
    checks: tuple[Check, ...] = ()
    metrics: Metrics | None = None
    logits: LogitMetrics | None = None
    worst: str = ""
    message: str = ""
    note: str = ""
    padding_rows: int = 0
    absent_rows: int = 0
    not_judged_rows: int = 0
    only_reference_rows: int = 0
    other_choice_rows: int = 0
    local: Local | None = None
    expected_ns: Nanoseconds = 0
    actual_ns: Nanoseconds = 0
    expected_iqr_ns: Nanoseconds = 0
    actual_iqr_ns: Nanoseconds = 0

    @property
    def ok(self) -> bool:
        return self.state == PASSED

    @property
    def part(self) -> str:
        """Its part in an error of a traced engine: ``culprit`` where the op is wrong by itself,
        ``victim`` where it is right and what it was given is wrong; else empty."""
        if self.local is None or self.ok:
            return ""
        return "victim" if self.local.ok else "culprit"


class SublayerResult(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One sublayer: the first of its tensors that is wrong, and its worst.

    ``input_shape`` is that of the golden's input, where the golden says it.
    """

    name: str
    state: str
    first_wrong: str = ""
    share: float = 0.0
    input_shape: tuple[int, ...] | None = None
    tensors: tuple[TensorResult, ...] = ()
    expected_ns: Nanoseconds = 0
    actual_ns: Nanoseconds = 0
    expected_iqr_ns: Nanoseconds = 0
    actual_iqr_ns: Nanoseconds = 0
    failure: dict[str, Any] | None = None


class Provenance(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Where a file came from."""

    path: str
    kind: str
    created_utc: str
    tool_version: str
    content_digest: str
    recipe: dict[str, Any]


class Report(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A run judged against its golden.

    ``command`` is the one that made it: diff, blame, verify, check or selftest. ``pictures``
    are of the worst tensors; ``findings`` are blame's, ``selftest`` is that command's.
    ``steps`` are the times of whole steps; ``determinism`` is what replay --shuffle found, and
    does not count for the verdict.
    ``checks`` are the steps of ``check``; the rest is then of the one that is wrong first.
    ``differs`` says, of two goldens, what else is not the same: torch, threads, dtype, ...
    ``left_out`` is how many of the golden's sublayers the run does not have, ``not_run`` are
    their names. ``trace`` is what a traced engine's calls prove, without any tolerance.
    """

    golden: Provenance
    run: Provenance
    policy: str
    mode: str
    sublayers: tuple[SublayerResult, ...]
    extra: tuple[TensorResult, ...] = ()
    simulated: bool = False
    faults: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    command: str = "diff"
    pictures: tuple[Picture, ...] = ()
    findings: Findings | None = None
    selftest: Selftest | None = None
    steps: tuple[StepTime, ...] = ()
    determinism: Determinism | None = None
    checks: tuple[CheckStep, ...] = ()
    left_out: int = 0
    not_run: tuple[str, ...] = ()
    trace: Trace | None = None

    @property
    def tensors(self) -> list[TensorResult]:
        return [t for s in self.sublayers for t in s.tensors] + list(self.extra)

    @property
    def compared(self) -> list[TensorResult]:
        return [t for t in self.tensors if t.state not in NEUTRAL]

    @property
    def not_judged(self) -> list[TensorResult]:
        """Tensors of which the reference is not finite in some row, or in any."""
        return [
            t
            for t in self.tensors
            if t.not_judged_rows or (t.state == NOT_JUDGED and not t.other_choice_rows)
        ]

    @property
    def culprits(self) -> tuple[Culprit, ...]:
        return self.findings.culprits if self.findings is not None else ()

    @property
    def structure(self) -> tuple[Finding, ...]:
        """What a traced engine does differently from the model."""
        return self.trace.findings if self.trace is not None else ()

    @property
    def ok(self) -> bool:
        """Every tensor passed, there was at least one (or the reference of none is finite), no
        sublayer crashed, and there is no culprit and no finding about the structure. A
        selftest: it kept its rates. A check: every step passed."""
        if self.selftest is not None:
            return self.selftest.ok
        if self.command == "check":
            return bool(self.checks) and all(step.ok for step in self.checks)
        crashed = any(sublayer.state == CRASHED for sublayer in self.sublayers)
        right = bool(self.compared or self.not_judged) and all(t.ok for t in self.compared)
        return right and not crashed and not self.culprits and not self.structure

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 1

    @property
    def noted(self) -> list[TensorResult]:
        """The tensors of which something is to be noted, though they are within tolerance."""
        return [tensor for tensor in self.tensors if tensor.note]

    @property
    def padding_rows(self) -> int:
        """How many rows of padding tokens were left out of all tensors."""
        return sum(tensor.padding_rows for tensor in self.tensors)

    @property
    def first_wrong(self) -> TensorResult | None:
        """The first tensor in execution order that is not right."""
        found = (first_wrong(sublayer.tensors, sublayer.failure) for sublayer in self.sublayers)
        return next((tensor for tensor in found if tensor is not None), None) or next(
            (tensor for tensor in self.extra if not tensor.ok), None
        )


def first_wrong(
    tensors: Sequence[TensorResult], failure: Mapping[str, Any] | None
) -> TensorResult | None:
    """Return a sublayer's first wrong tensor; where it crashed, that of the op it crashed in."""
    wrong = [t for t in tensors if not t.ok and t.state not in NEUTRAL]
    tap = plain_tap(str(failure.get("tap", ""))) if failure is not None else ""
    failed = [t for t in wrong if tap and t.tap == tap]
    return next(iter(failed + wrong), None)


def worst_share(results: list[TensorResult]) -> float:
    """The largest share of tolerance used; NaN counts as Inf."""
    return max((math.inf if math.isnan(r.share) else r.share for r in results), default=0.0)


class StepTime(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One whole step of a case, ``default/00``: its tokens without padding, and the sums of its
    ops' times in nanoseconds; 0 where they were not taken. ``kind`` is empty in reports from
    before it was kept, where a prompt was one step."""

    step: str
    tokens: int
    kind: Literal["", "prefill", "decode"] = ""
    expected_ns: int = 0
    actual_ns: int = 0

    @property
    def decodes(self) -> bool:
        return self.kind == "decode" or (not self.kind and not self.step.endswith("/00"))

    @property
    def expected_per_s(self) -> float:
        return self.tokens * 1e9 / self.expected_ns if self.expected_ns else 0.0

    @property
    def actual_per_s(self) -> float:
        return self.tokens * 1e9 / self.actual_ns if self.actual_ns else 0.0
