"""Owns which sketch each tensor of a file gets: with its budget's limits, and logits' top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff._partial import RowErrors
from goldenctl.diff.budget import Budget, row_limits
from goldenctl.diff.metrics import score
from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import BUDGET_SCOPES, TensorInfo
from goldenctl.golden.sketch import Sketch, sketch_of

SKETCHED_ROLES = ("constant", "input", "tap", "output")


def sketches_of(file: GoldenFile) -> Iterator[tuple[str, Sketch]]:
    """Yield the name and sketch of every float tensor that is neither budget nor truth."""
    for info in file.tensors.values():
        if info.role in SKETCHED_ROLES and DTYPES[info.dtype].is_float and info.nbytes:
            yield info.name, sketch_tensor(file, info)


def sketch_tensor(file: GoldenFile, info: TensorInfo) -> Sketch:
    """Sketch one tensor; where the file has a budget for it, its limits go with it."""
    values = file.verify(info.name)
    folder, _, tap = info.name.rpartition("/")
    budget = f"{folder}/budget/{tap}"
    limits = None
    if budget in file.tensors:
        limits = granted(values, file.verify(budget))
    return sketch_of(values, row_limits=limits, top=info.sublayer == "lm_head")


def granted(values: NDArray[Any], stored: NDArray[Any]) -> NDArray[np.float64]:
    """Return the L2 error that a stored budget grants each row, ``[scope, row]``."""
    rows = RowErrors.of(values)
    score(values, values, atol=0.0, rtol=0.0, rows=rows)
    norms = np.sqrt(rows.expected_squared)
    return np.stack(
        [
            row_limits(Budget.of(stored, scope), norms, from_truth=False)[0]
            for scope in range(len(BUDGET_SCOPES))
        ]
    )
