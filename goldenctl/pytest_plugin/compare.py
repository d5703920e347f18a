"""The verdict on one tensor of a test, and the message when it is not the golden's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from goldenctl.diff.metrics import score
from goldenctl.diff.tolerance import check_limits
from goldenctl.dtypes import DTYPES
from goldenctl.pytest_plugin.arrays import Array
from goldenctl.pytest_plugin.tolerance import Allowed
from goldenctl.records.metrics import Metrics
from goldenctl.records.policy import Check

_SHOWN = 5


def difference(actual: Array, expected: Array, allowed: Allowed) -> str:
    """Return what is beyond the tolerance, in a few lines; empty when nothing is.

    Both are of one shape and one type that goldens keep.
    """
    if actual.size == 0:
        return ""
    if not DTYPES[expected.dtype.name].is_float:
        return _unequal(actual, expected)
    atol, rtol = allowed.atol or 0.0, allowed.rtol or 0.0
    metrics = score(actual, expected, atol=atol, rtol=rtol)
    lines = []
    if metrics.mismatches:
        lines.append(
            f"{metrics.mismatches:,} elements are NaN or Inf where the golden has another value"
        )
    by_element = allowed.by_element or allowed.exact
    if by_element and metrics.outside > metrics.mismatches:
        lines.append(_outside(metrics, allowed))
    limits = allowed.limits(expected.dtype.name)
    if limits is not None and metrics.compared:
        lines += [_check(c) for c in check_limits(metrics, limits) if not c.ok]
    if not lines:
        return ""
    return "\n".join([*lines, *_worst(actual, expected), _summary(metrics)])


def _unequal(actual: Array, expected: Array) -> str:
    wrong = np.count_nonzero(actual != expected)
    if not wrong:
        return ""
    said = f"{wrong:,} of {actual.size:,} elements are not equal"
    return "\n".join([said, *_worst(actual, expected)])


def _outside(metrics: Metrics, allowed: Allowed) -> str:
    said = f"{metrics.outside:,} of {metrics.count:,} elements"
    if allowed.exact:
        return f"{said} are not equal"
    atol, rtol = allowed.atol or 0.0, allowed.rtol or 0.0
    return f"{said} are beyond |actual - expected| <= {atol:g} + {rtol:g} |expected|"


def _check(check: Check) -> str:
    names = {
        "rel_l2": "relative L2 error",
        "max_ulp": "largest ULP distance",
        "peak": "largest error over largest value",
        "scale": "scale error",
    }
    name = names.get(check.metric, check.metric)
    word = "at least" if check.metric == "cosine" else "at most"
    return f"{name} {check.value:.3g}, {word} {check.limit:.3g} is allowed"


def _worst(actual: Array, expected: Array) -> Iterator[str]:
    """Name the elements that are furthest off, non-finite ones first."""
    a, e = actual.reshape(-1).astype(np.float64), expected.reshape(-1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(a - e)
    off = np.where(np.isnan(off), np.where(np.isnan(a) & np.isnan(e), 0.0, np.inf), off)
    off = np.where(a == e, 0.0, off)
    count = min(_SHOWN, int(np.count_nonzero(off)))
    order = np.argsort(-off, kind="stable")[:count]
    yield f"{'worst at':>18}  {'actual':>14}  {'expected':>14}  {'off by':>10}"
    for flat in order:
        index = [int(i) for i in np.unravel_index(flat, actual.shape)]
        yield f"{index!s:>18}  {_number(a[flat])}  {_number(e[flat])}  {off[flat]:>10.3g}"


def _number(value: float) -> str:
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e12
    return f"{int(value):>14,}" if whole else f"{value:>14.7g}"


def _summary(metrics: Metrics) -> str:
    return (
        f"over all: relative L2 {metrics.rel_l2:.3g}, cosine {metrics.cosine:.6f}, "
        f"largest error {metrics.max_abs_error:.3g}, largest value {metrics.max_expected:.3g}"
    )
