"""The sketch of each tensor of a file: with its budget's limits, and the logits' top tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, row_limits
from goldenctl.diff.finite import finite_rows
from goldenctl.diff.metrics import score
from goldenctl.diff.padding import Padding, padding_of
from goldenctl.diff.sums import RowErrors
from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES, TensorInfo, budget_path
from goldenctl.golden.sketch import Sketch, sketch_of

SKETCHED_ROLES = ("constant", "input", "tap", "output")


def sketches_of(file: GoldenFile) -> Iterator[tuple[str, Sketch]]:
    """Yield the name and sketch of every float tensor that is neither budget nor truth."""
    for info in file.tensors.values():
        if info.role in SKETCHED_ROLES and DTYPES[info.dtype].is_float and info.nbytes:
            yield info.name, sketch_tensor(file, info)


def sketch_tensor(file: GoldenFile, info: TensorInfo) -> Sketch:
    """Sketch one tensor, padding left out; where the file has a budget for it, its limits go
    with it."""
    values, padding = file.verify(info.name), padding_of(file, info)
    budget = budget_path(info.name, recorded=info.dtype, actual=info.dtype)
    limits = None
    if budget in file.tensors:
        limits = granted(values, file.verify(budget), padding)
    return sketch_values(values, info, padding, row_limits=limits)


def sketch_values(
    values: NDArray[Any],
    info: TensorInfo,
    padding: Padding,
    *,
    row_limits: NDArray[np.float64] | None = None,
) -> Sketch:
    """Sketch a tensor's values, rows and elements of padding as zeros."""
    top = info.sublayer == "lm_head"
    return sketch_of(padding.blanked(values), row_limits=row_limits, top=top)


def granted(values: NDArray[Any], stored: NDArray[Any], padding: Padding) -> NDArray[np.float64]:
    """Return the L2 error that a stored budget grants each row, ``[scope, row]``; rows of
    padding, which are zeros in a sketch, are granted nothing, and there is no limit for rows that
    are not finite."""
    counted_rows = finite_rows(values, padding)
    kept = counted_rows.without(values)
    rows = RowErrors.of(kept)
    score(kept, kept, atol=0.0, rtol=0.0, rows=rows)
    norms = np.sqrt(rows.expected_squared)
    limits = np.zeros((len(BUDGET_SCOPES), values.size // values.shape[-1]))
    if counted_rows.count > padding.count:
        limits[:, slice(None) if padding.rows is None else padding.rows] = np.inf
    counted = slice(None) if counted_rows.rows is None else counted_rows.rows
    for scope in range(len(BUDGET_SCOPES)):
        budget = Budget.of(stored, scope, counted_rows.rows)
        limits[scope, counted] = row_limits(budget, norms, from_truth=False)[0]
    return limits
