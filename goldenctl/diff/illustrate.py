"""Choice of the tensors of a comparison that get pictures, and of the units of their rows."""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from goldenctl.diff.budget import Budget, expected_error, row_limits, row_shares
from goldenctl.diff.finite import finite_rows
from goldenctl.diff.metrics import score
from goldenctl.diff.padding import Padding, padding_of
from goldenctl.diff.pictures import Scale, picture
from goldenctl.diff.scopes import is_fused, stored_budget
from goldenctl.diff.sums import RowErrors
from goldenctl.diff.traced import computed_rows, trace_of
from goldenctl.dtypes import DTYPES
from goldenctl.golden.composed import scope_of
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.places import plain_name
from goldenctl.records.pictures import Picture
from goldenctl.records.report import BY_BUDGET, Report, TensorResult

ILLUSTRATED = 8


def illustrate(
    report: Report, golden: GoldenFile, run: GoldenFile, *, count: int = ILLUSTRATED
) -> Report:
    """Return the report with pictures of its ``count`` worst tensors, the first wrong first.

    ``golden`` and ``run`` are the files that it was made from.
    """
    pictures = tuple(_picture(t, report.mode, golden, run) for t in chosen(report, count))
    return replace(report, pictures=pictures)


def chosen(report: Report, count: int) -> list[TensorResult]:
    """Return the first wrong tensor, the culprits, and the worst of the rest."""
    scored = [t for t in report.compared if t.metrics is not None and t.metrics.count]
    culprits = {culprit.name for culprit in report.culprits}
    wrong = [t for t in scored if not t.ok]
    first = [*wrong[:1], *(t for t in scored if t.name in culprits)]
    by_share = sorted(scored, key=lambda t: -math.inf if math.isnan(t.share) else -t.share)
    return list({t.name: t for t in (*first, *by_share)}.values())[:count]


def _picture(tensor: TensorResult, mode: str, golden: GoldenFile, run: GoldenFile) -> Picture:
    info = _expected(tensor, golden)
    actual, expected = run.map(tensor.name), golden.map(info.name)
    counted = computed_rows(trace_of(run), info, padding_of(golden, info))
    actual = counted.equalised(actual, expected)
    rows = RowErrors.of(expected)
    score(actual, expected, atol=0.0, rtol=0.0, rows=rows)
    if tensor.rule in BY_BUDGET:
        scale = _by_budget(tensor, mode, golden, run, rows)
    else:
        scale = _by_tolerance(tensor, rows)
    finite = finite_rows(expected, Padding()).rows
    scale.shares[_unlike(actual, expected)] = np.inf
    if finite is not None and tensor.ok:
        scale.shares[~finite] = 0.0  # no row is wrong where there is nothing to judge by
    return picture(
        tensor.name,
        actual,
        expected,
        info.dims,
        scale=scale,
        describe=not tensor.ok,
    )


def _by_budget(
    tensor: TensorResult, mode: str, golden: GoldenFile, run: GoldenFile, rows: RowErrors
) -> Scale:
    info = _expected(tensor, golden)
    folder, tap = info.place.group, info.tap
    fused, scope = is_fused(run, info), scope_of(mode, tensor.name)
    stored = stored_budget(golden, info, tensor.actual_dtype, scope=scope, fused=fused)
    assert stored is not None, f"{tensor.name}: judged by a budget that is not there"
    budget = Budget.of(golden.map(stored.name), stored.scope).where_finite()
    norms = np.sqrt(rows.expected_squared)
    judged, from_truth = rows, tensor.rule == "truth"
    if from_truth:
        exact = golden.map(f"{folder}/oracle/{tap}")[stored.scope]
        judged = RowErrors.of(exact)
        score(run.map(tensor.name), exact, atol=0.0, rtol=0.0, rows=judged)
    return Scale(
        shares=row_shares(judged, budget, from_truth=from_truth),
        limits=row_limits(budget, norms, from_truth=False)[0],
        rounding=expected_error(budget, norms),
    )


def _expected(tensor: TensorResult, golden: GoldenFile) -> TensorInfo:
    """What a tensor is held against; a run beside another has composed tensors of its own."""
    return golden.tensors.get(tensor.name) or golden.info(plain_name(tensor.name))


def _by_tolerance(tensor: TensorResult, rows: RowErrors) -> Scale:
    """Spread the tensor's limit evenly over its rows: by its relative L2 limit, else so that
    the whole tensor uses the share that it was judged to use."""
    norm, error = np.sqrt([rows.expected_squared.sum(), rows.error_squared.sum()])
    stated = [check.limit for check in tensor.checks if check.metric == "rel_l2"]
    if stated:
        total = stated[0] * norm
    elif 0.0 < tensor.share < math.inf:
        total = error / tensor.share
    else:
        total = 4 * DTYPES[tensor.dtype].eps * norm
    limits = np.full(rows.error_squared.size, total / math.sqrt(rows.error_squared.size))
    errors = np.sqrt(rows.error_squared)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors == 0.0, 0.0, errors / limits)
    return Scale(shares=shares, limits=limits)


def _unlike(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Rows in which one of finite, NaN, +Inf, -Inf stands against another."""
    width = expected.shape[-1] if expected.ndim else 1
    a, e = actual.reshape(-1, width), expected.reshape(-1, width)
    unlike = np.zeros(e.shape[0], bool)
    step = max((1 << 20) // width, 1)
    for start in range(0, e.shape[0], step):
        x, y = a[start : start + step], e[start : start + step]
        same = np.where(np.isfinite(y), np.isfinite(x), (x == y) | (np.isnan(x) & np.isnan(y)))
        unlike[start : start + step] = ~same.all(axis=1)
    return unlike
