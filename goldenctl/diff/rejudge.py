"""Judging a stored report again under another policy, without the tensors."""

from __future__ import annotations

from msgspec.structs import replace

from goldenctl.diff.further import NOT_OF_TOLERANCE
from goldenctl.diff.results import with_tensors
from goldenctl.diff.tolerance import Policy, Scores, check_limits, limits_for
from goldenctl.golden.composed import scope_of
from goldenctl.records.policy import verdict
from goldenctl.records.report import (
    BY_BUDGET,
    NOT_JUDGED,
    PASSED,
    Report,
    SublayerResult,
    TensorResult,
)

FINAL = ("check", "selftest")
"""Commands whose verdict is of more than the tensors that their report holds."""


def rejudge(report: Report, policy: Policy) -> Report:
    """Return the report as ``policy`` judges its metrics; one that is FINAL as it is.

    Where the policy puts budgets first, verdicts by budget stand: they need the tensors.
    """
    if report.command in FINAL:
        return report
    sublayers = tuple(_sublayer(s, policy, report.mode) for s in report.sublayers)
    findings = report.findings
    if findings is not None:
        right = {t.name for s in sublayers for t in s.tensors if t.ok}
        left = tuple(culprit for culprit in findings.culprits if culprit.name not in right)
        findings = replace(findings, culprits=left)
    return replace(report, policy=policy.name, sublayers=sublayers, findings=findings)


def _sublayer(sublayer: SublayerResult, policy: Policy, mode: str) -> SublayerResult:
    tensors: list[TensorResult] = []
    scores = None
    for tensor in sublayer.tensors:
        scope = scope_of(mode, tensor.name)
        tensors.append(_tensor(tensor, policy, scope, scores))
        if tensor.op == "matmul_qk" and tensor.metrics is not None:
            scores = Scores(tensor.metrics.max_expected, tensor.shape[-1])
    return with_tensors(sublayer, tensors)


def _tensor(tensor: TensorResult, policy: Policy, mode: str, scores: Scores | None) -> TensorResult:
    if (
        tensor.metrics is None
        or tensor.state == NOT_JUDGED
        or (policy.budget and tensor.rule in BY_BUDGET)
    ):
        return tensor
    dtypes = (tensor.dtype, tensor.actual_dtype or tensor.dtype)
    limits = limits_for(policy, tensor.op, dtypes, mode, shape=tensor.shape, scores=scores)
    checks = (
        *check_limits(tensor.metrics, limits),
        *(check for check in tensor.checks if policy.budget and check.metric in NOT_OF_TOLERANCE),
    )
    m = tensor.metrics
    found = verdict(checks, finite=m.mismatches == 0 and m.compared > 0)
    return replace(
        tensor,
        state=PASSED if found.ok else "failed",
        rule=policy.name,
        checks=checks,
        share=found.share,
    )
