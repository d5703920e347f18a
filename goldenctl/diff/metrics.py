"""Metrics between two tensors: one pass, float64 sums, no verdict.

``score`` reads each element once, in ranges of a fixed size that two threads share, through
kernel.c when it was compiled and NumPy when not. Both give the same counts, maxima and
indices; sums agree to the rounding of float64. Positions that are not finite on both sides
are counted (``mismatches``, ``nan_*``, ``inf_*``) and left out of every other number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np

from goldenctl.diff import _kernel, _numpy
from goldenctl.diff.sums import DTYPE_CODES, Array, Job, Partial, RowErrors, join
from goldenctl.records.metrics import LogitMetrics, Metrics

__all__ = ["LogitMetrics", "Metrics", "RowErrors", "compiled", "score", "score_logits"]

_RANGE = 1 << 18  # elements per call: 2 MiB of float32 pairs
_NUMPY_RANGE = 1 << 16  # NumPy's temporaries stay within the cache


def compiled() -> bool:
    """Return whether the compiled kernel is in use."""
    return _kernel.LIBRARY is not None


def score(
    actual: Array, expected: Array, *, atol: float, rtol: float, rows: RowErrors | None = None
) -> Metrics:
    """Measure ``actual`` against ``expected``, of one shape and any two float types.

    Extra memory is below 64 MiB. ``rows`` (``RowErrors.of``) is filled on the way. Raises
    ValueError for other types, shapes that differ, or a tolerance that is not >= 0.
    """
    job = _job(actual, expected, atol, rtol, rows)
    total = measure(job, use_kernel=compiled())
    return _finish(total, job)


def _job(actual: Array, expected: Array, atol: float, rtol: float, rows: RowErrors | None) -> Job:
    for side in (actual, expected):
        if side.dtype.name not in DTYPE_CODES or not side.dtype.isnative:
            message = f"{side.dtype} is not one of {', '.join(DTYPE_CODES)}"
            raise ValueError(message)
    if actual.shape != expected.shape:
        message = f"shapes differ: actual {actual.shape}, expected {expected.shape}"
        raise ValueError(message)
    if not (atol >= 0.0 and rtol >= 0.0):
        message = f"tolerances must be >= 0: atol {atol}, rtol {rtol}"
        raise ValueError(message)
    if rows is not None and rows.row_length * rows.max_error.size != expected.size:
        message = f"rows of {rows.row_length} were made for another tensor"
        raise ValueError(message)
    return Job(_flat(actual), _flat(expected), float(atol), float(rtol), rows)


def _flat(array: Array) -> Array:
    # A copy only where a view is strided or misaligned; the kernel reads whole elements.
    return np.require(array, requirements=("C", "A")).reshape(-1)


def measure(job: Job, *, use_kernel: bool) -> Partial:
    """Reduce a job to sums: ranges of a fixed size, in order, whatever the threads."""
    work = partial(_kernel.score_range if use_kernel else _numpy.score_range, job)
    ranges = list(_ranges(job, _RANGE if use_kernel else _NUMPY_RANGE))
    if len(ranges) < 2:
        return join(work(*each) for each in ranges)
    return join(_pool().map(lambda each: work(*each), ranges))


def _ranges(job: Job, size: int) -> Iterator[tuple[int, int]]:
    """Cut the elements into ranges of about ``size`` that end at rows."""
    length = job.rows.row_length if job.rows else 1
    step = max(size // length, 1) * length
    for start in range(0, job.expected.size, step):
        yield start, min(start + step, job.expected.size)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="score")


def _finish(total: Partial, job: Job) -> Metrics:
    count, n = job.expected.size, max(total.compared, 1)
    worst = total.worst_index if total.worst_index >= 0 else None
    return Metrics(
        count=count,
        compared=total.compared,
        cosine=_cosine(total),
        mse=total.error_squared / n,
        rel_l2=_rel_l2(total),
        max_abs_error=total.max_error,
        mean_abs_error=total.error_sum / n,
        max_ulp=total.max_ulp,
        sqnr_db=_sqnr_db(total),
        outside=total.outside,
        outside_fraction=total.outside / max(count, 1),
        atol=job.atol,
        rtol=job.rtol,
        worst_index=worst,
        worst_actual=None if worst is None else float(job.actual[worst]),
        worst_expected=None if worst is None else float(job.expected[worst]),
        mismatches=total.mismatches,
        first_mismatch=total.first_mismatch if total.first_mismatch >= 0 else None,
        nan_actual=total.nan_actual,
        nan_expected=total.nan_expected,
        inf_actual=total.inf_actual,
        inf_expected=total.inf_expected,
        norm_actual=math.sqrt(total.actual_squared),
        norm_expected=math.sqrt(total.expected_squared),
        max_expected=total.max_expected,
        rms_expected=math.sqrt(total.expected_squared / n),
    )


def _cosine(total: Partial) -> float:
    if not total.compared:
        return math.nan
    if total.error_squared == 0.0 and total.max_error == 0.0:
        return 1.0  # exactly, whatever the sums rounded to
    norms = math.sqrt(total.actual_squared) * math.sqrt(total.expected_squared)
    if norms == 0.0 or not math.isfinite(norms):
        return math.nan
    return min(1.0, max(-1.0, total.dot / norms))


def _rel_l2(total: Partial) -> float:
    if not total.compared:
        return math.nan
    if total.max_error == 0.0:
        return 0.0
    if total.expected_squared == 0.0:
        return math.inf
    return math.sqrt(total.error_squared) / math.sqrt(total.expected_squared)


def _sqnr_db(total: Partial) -> float:
    if not total.compared:
        return math.nan
    if total.error_squared == 0.0:
        return math.inf
    if total.expected_squared == 0.0:
        return -math.inf
    return 10.0 * (math.log10(total.expected_squared) - math.log10(total.error_squared))


def score_logits(actual: Array, expected: Array) -> LogitMetrics:
    """Compare logits row by row (last axis), in float64 and blocks of rows.

    No rows, or a row that is not finite, give NaN. Raises ValueError when shapes differ.
    """
    if actual.shape != expected.shape or not expected.ndim:
        message = f"logits need one shape: actual {actual.shape}, expected {expected.shape}"
        raise ValueError(message)
    width = expected.shape[-1]
    a, e = actual.reshape(-1, width), expected.reshape(-1, width)
    rows = e.shape[0] if width else 0
    step = max((1 << 20) // max(width, 1), 1)
    agree, divergence = 0, [np.zeros(0)]
    for start in range(0, rows, step):
        part = slice(start, start + step)
        x, y = a[part].astype(np.float64), e[part].astype(np.float64)
        agree += _top1_agreements(x, y)
        divergence.append(_kl(x, y))
    kl = np.concatenate(divergence)
    return LogitMetrics(
        rows=rows,
        top1_agreement=agree / rows if rows else math.nan,
        mean_kl=float(kl.mean()) if rows else math.nan,
        max_kl=float(kl.max()) if rows else math.nan,
    )


def _top1_agreements(x: Any, y: Any) -> int:
    chosen = np.take_along_axis(x, y.argmax(axis=1)[:, None], axis=1)[:, 0]
    return int(np.count_nonzero((chosen == x.max(axis=1)) & np.isfinite(y).all(axis=1)))


def _kl(x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        log_p, log_q = _log_softmax(y), _log_softmax(x)
        return np.sum(np.exp(log_p) * (log_p - log_q), axis=1)


def _log_softmax(x: Any) -> Any:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
