"""The verdict on whole numbers, such as the experts that a router chose: equal or not.

A row may differ where its budget says that rounding alone tips it: the wider truth, or one of its
twins, chose otherwise (docs/budgets.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.results import result_of
from goldenctl.diff.scopes import stored_budget
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.records.policy import Check, share_of
from goldenctl.records.report import PASSED, TensorResult


def whole_numbers(
    golden: GoldenFile, run: GoldenFile, info: TensorInfo, actual: TensorInfo, *, mode: str
) -> TensorResult:
    """Judge a tensor of whole numbers, of one type and shape in both files."""
    differ = np.asarray(run.verify(actual.name) != golden.verify(info.name))
    free = _free(golden, info, mode)
    counted = differ & ~free[..., None]
    wrong, tipped = int(counted.sum()), int((differ & free[..., None]).sum())
    checks = (Check("differing", float(wrong), 0.0, share_of(float(wrong), 0.0)),)
    message, worst = "", ""
    if tipped:
        message = f"{tipped} elements differ in rows that rounding alone may tip"
    if wrong:
        where = np.argwhere(counted)[0]
        worst = ", ".join(f"{dim} {int(i)}" for dim, i in zip(info.dims, where, strict=True))
        at = tuple(where)
        got, right = int(run.map(actual.name)[at]), int(golden.map(info.name)[at])
        message = f"{wrong} of {differ.size} elements differ, first at {worst}: {got}, not {right}"
    return result_of(
        info,
        "failed" if wrong else PASSED,
        actual,
        rule="exact",
        share=checks[0].share,
        checks=checks,
        worst=worst,
        message=message,
    )


def _free(golden: GoldenFile, info: TensorInfo, mode: str) -> NDArray[np.bool_]:
    """Which rows may differ."""
    stored = stored_budget(golden, info, info.dtype, scope=mode, fused=False)
    if stored is None:
        return np.zeros(info.shape[:-1], np.bool_)
    rows = golden.verify(stored.name)[stored.scope]
    free: NDArray[np.bool_] = np.asarray((rows != 0).any(axis=-1))
    return free.reshape(info.shape[:-1])
