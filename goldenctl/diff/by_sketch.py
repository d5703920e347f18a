"""The verdict by sketch: what can be said of a tensor without its golden's bytes.

The estimate d of the relative L2 error D is that of 64 signed sums: where many elements err,
D is between 0.746 d and 1.46 d in all but 2 of 10,000 cases. Within the limit for certain
passes, beyond it for certain fails, and in between the sketch cannot tell: ``unsure``, which
is no pass.
docs/check.md gives the rule, its reasons and its limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from goldenctl.diff.finite import NO_REFERENCE
from goldenctl.diff.results import result_of
from goldenctl.diff.tolerance import Limits, Policy, limits_for
from goldenctl.errors import DamagedError
from goldenctl.golden.composed import scope_of
from goldenctl.golden.count_sketch import Doubles
from goldenctl.golden.schema import TensorInfo
from goldenctl.golden.sketch import (
    RESOLUTION,
    ROW_RESOLUTION,
    Distance,
    Sketch,
    distance,
    group_rows,
    row_budget,
)
from goldenctl.records.policy import Check, share_of, verdict
from goldenctl.records.report import NOT_JUDGED, PASSED, TensorResult
from goldenctl.records.words import amount

UNSURE = "unsure"
RULE = "sketch"
PARTLY = "elements that are NaN or Inf in the golden are not judged, but for where they are"
# Quantiles 1e-4 and 1 - 1e-4 of sqrt(chi²/64).
LEAST, MOST = 0.746, 1.46
# Three sums to a group: chi² of 3 exceeds 32 once in two million.
GROUP_FACTOR = math.sqrt(32 / 3)
# Norms of groups are kept to 8 bits; two of them differ by at most this part.
NORM_STEP = 2.0**-8
# Where a table judges instead of a budget: a group may be off by this many times the
# tensor's relative tolerance.
TABLE_ROWS = 8.0

Observe = Callable[[TensorInfo], Sketch]


@dataclass(frozen=True)
class _Granted:
    """What is allowed of the whole tensor and of each group of rows, both over the norm of
    the expected tensor, and by how much its scale may be off."""

    total: float
    rows: Doubles
    scale: float | None = None


class SketchScorer:
    """Judges a run's tensors by their sketches and those of the golden."""

    def __init__(
        self, expected: dict[str, Sketch], observe: Observe, policy: Policy, mode: str
    ) -> None:
        self._expected = expected
        self._observe = observe
        self._policy = policy
        self._mode = mode

    def __call__(self, info: TensorInfo, actual: TensorInfo) -> TensorResult:
        """Judge one tensor of equal shape. Raises DamagedError when a sketch is unreadable."""
        expected = self._expected.get(info.name)
        held = _held(expected)
        if actual.digest == info.digest and actual.dtype == info.dtype:
            if held == math.prod(info.shape):
                return result_of(info, NOT_JUDGED, actual, message=NO_REFERENCE)
            said = PARTLY if held else ""
            return result_of(info, PASSED, actual, rule="digest", message=said)
        if expected is None:
            said = "the manifest has no sketch of it, and the bytes differ"
            return result_of(info, UNSURE, actual, rule=RULE, share=math.inf, message=said)
        try:
            seen = self._observe(actual)
            gap = distance(seen, expected)
            granted = self._granted(info, actual, expected, gap)
        except ValueError as error:
            message = f"{info.name}: its sketch cannot be read: {error}"
            raise DamagedError(message) from error
        if held == math.prod(info.shape) and gap.same_places:
            return result_of(info, NOT_JUDGED, actual, message=NO_REFERENCE)
        result = _judged(info, actual, gap, granted)
        return structs.replace(result, message=PARTLY) if held and result.ok else result

    def _granted(
        self, info: TensorInfo, actual: TensorInfo, expected: Sketch, gap: Distance
    ) -> _Granted:
        usable = self._policy.budget and actual.dtype == info.dtype
        scope = scope_of(self._mode, actual.name)
        total = (expected.budget or {}).get(scope) if usable else None
        if total is not None:
            rows = row_budget(expected, scope)
            if rows.size != gap.row_errors.size:
                msg = f"row_budget has {rows.size} groups, expected {gap.row_errors.size}"
                raise ValueError(msg)
            return _Granted(total, rows)
        dtypes = (info.dtype, actual.dtype)
        limits = limits_for(self._policy, info.op, dtypes, scope, shape=info.shape)
        total = relative_limit(limits, info, expected)
        typical = math.sqrt(1.0 / max(gap.row_norms.size, 1))
        rows = TABLE_ROWS * total * np.maximum(gap.row_norms, typical)
        return _Granted(total, rows, limits.scale)


def _held(sketch: Sketch | None) -> int:
    """How many elements of a golden's tensor are NaN or Inf."""
    found = None if sketch is None else sketch.non_finite
    return 0 if found is None else found.nan + found.inf + found.negative_inf


def relative_limit(limits: Limits, info: TensorInfo, expected: Sketch) -> float:
    """Return the relative L2 error that limits allow; NaN when they ask for nothing that a
    sketch can tell. A cosine of at least c allows sqrt(2 - 2c), norms being equal."""
    allowed = [] if limits.rel_l2 is None else [limits.rel_l2]
    if limits.cosine is not None:
        allowed.append(math.sqrt(max(0.0, 2.0 - 2.0 * limits.cosine)))
    if limits.mse is not None and expected.norm > 0.0:
        allowed.append(math.sqrt(limits.mse * math.prod(info.shape)) / expected.norm)
    return min(allowed, default=math.nan)


def _judged(info: TensorInfo, actual: TensorInfo, gap: Distance, granted: _Granted) -> TensorResult:
    if math.isnan(granted.total) and gap.same_places:
        said = "the sketch cannot tell: the tolerance asks for nothing that it can estimate"
        return result_of(info, UNSURE, actual, rule=RULE, share=math.inf, message=said)
    shares = _group_shares(gap, granted.rows)
    checks = [
        Check("sketch_l2", gap.rel_l2, granted.total, share_of(gap.rel_l2, granted.total)),
        Check("sketch_rows", float(shares.max(initial=0.0)), 1.0, float(shares.max(initial=0.0))),
    ]
    if granted.scale is not None:
        checks.append(_scale_check(gap, granted.scale))
    floor = RESOLUTION * max(1.0, gap.norm_ratio)
    exact = all(check.ok for check in checks[1:]) and gap.same_places
    beyond = (gap.rel_l2 - floor) * LEAST > granted.total or not exact
    within = (gap.rel_l2 + floor) * MOST <= granted.total and exact
    state = "failed" if beyond else PASSED if within else UNSURE
    return result_of(
        info,
        state,
        actual,
        rule=RULE,
        share=verdict(checks, finite=gap.same_places).share,
        checks=tuple(checks),
        message="" if state == PASSED else _said(info, gap, checks, unsure=state == UNSURE),
        worst=rows_named(info, int(shares.argmax())) if not checks[1].ok else "",
    )


def _said(info: TensorInfo, gap: Distance, checks: list[Check], *, unsure: bool) -> str:
    if not gap.same_places:
        return "NaN or Inf are not where the golden has them"
    limit = checks[0].limit
    said = f"relative L2 about {gap.rel_l2:.2g}, {limit:.2g} is allowed"
    wrong = {check.metric: check.share for check in checks[1:] if not check.ok}
    if "sketch_rows" in wrong:
        said += f"; some rows are {amount(wrong['sketch_rows'])} times their limit"
    if "sketch_scale" in wrong:
        said += f"; the scale is {gap.norm_ratio:.6g} of the golden's"
    return f"the sketch cannot tell: {said}" if unsure else said


def _scale_check(gap: Distance, limit: float) -> Check:
    """|s - 1| of the best fit a = s·e, which follows from the two norms and the distance; the
    norms are exact, so only the distance's own square makes it uncertain."""
    error = abs((gap.norm_ratio**2 - 1.0 - gap.rel_l2**2) / 2.0)
    return Check("sketch_scale", error, limit, share_of(error, limit + gap.rel_l2**2))


def _group_shares(gap: Distance, limits: Doubles) -> Doubles:
    """Return each group's error over what is certainly too much; NaN counts as Inf."""
    floor = ROW_RESOLUTION * gap.row_norms
    by_sums = gap.row_errors / (GROUP_FACTOR * np.hypot(limits, floor) + 1e-300)
    by_norms = gap.row_norm_changes / (limits + NORM_STEP * gap.row_norms + 1e-300)
    worst = np.maximum(by_sums, by_norms)
    return np.where(np.isnan(worst), np.inf, worst)


def rows_named(info: TensorInfo, group: int) -> str:
    """Name the rows of a group by their indices: ``token 3``, or ``token 4 .. token 6``."""
    first, end = group_rows(info.shape, group)
    shape, dims = (
        (info.shape[:-1], info.dims[:-1])
        if len(info.shape) > 1
        else (
            info.shape,
            info.dims,
        )
    )
    places = [np.unravel_index(row, shape) for row in (first, end - 1)] if shape else []
    names = [
        ", ".join(f"{dim} {int(i)}" for dim, i in zip(dims, place, strict=True)) for place in places
    ]
    return " .. ".join(dict.fromkeys(names))
