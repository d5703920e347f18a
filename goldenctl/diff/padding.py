"""Owns the rule for padding: rows of padding tokens have no meaning, so they are left out.

A padding token sees no token at all; what its row holds is up to the implementation, and no
other token sees it. Its rows are left out of every score, budget and verdict, and how many
were is in the report. For the same reason the scores of padding keys count as equal: they
are masked right after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo

Values = NDArray[Any]


@dataclass(frozen=True)
class Padding:
    """Which rows of a tensor count, over all its axes but the last, and which elements of those
    rows; None for all."""

    rows: NDArray[np.bool_] | None = None
    elements: NDArray[np.bool_] | None = None

    @property
    def count(self) -> int:
        """How many rows are left out."""
        return 0 if self.rows is None else int(np.count_nonzero(~self.rows))

    def without(self, values: Values) -> Values:
        """Return the rows that count, ``[n, last]``, with zero for elements that do not; the
        values as they are where all count."""
        if self.rows is None:
            return values
        kept = values.reshape(-1, values.shape[-1])[self.rows]
        if self.elements is not None:
            kept[~self.elements] = 0
        return kept

    def equalised(self, actual: Values, expected: Values) -> Values:
        """Return ``actual`` in its shape, with ``expected`` where nothing counts."""
        if self.rows is None:
            return actual
        rows = np.array(actual).reshape(-1, actual.shape[-1])
        right = expected.reshape(rows.shape)
        rows[~self.rows] = right[~self.rows]
        if self.elements is not None:
            kept = np.flatnonzero(self.rows)
            row, column = np.nonzero(~self.elements)
            rows[kept[row], column] = right[kept[row], column]
        return rows.reshape(actual.shape)

    def row_index(self, row: int) -> int:
        """Return the place in the whole tensor of a row that counts."""
        if self.rows is None:
            return row
        return int(np.flatnonzero(self.rows)[row])


def padding_of(golden: GoldenFile, info: TensorInfo) -> Padding:
    """Return what of a tensor counts."""
    mask_name = f"{'/'.join(info.name.split('/')[:4])}/attention_mask"
    if mask_name not in golden.tensors or "token" not in info.dims[:-1]:
        return Padding()
    mask = golden.map(mask_name).astype(bool)  # [B, T]
    if mask.all():
        return Padding()
    shape, dims = info.shape[:-1], info.dims[:-1]
    own = mask[:, -shape[dims.index("token")] :]  # [B, S]
    visible = own.reshape(
        [size if dim in ("batch", "token") else 1 for dim, size in zip(dims, shape, strict=True)]
    )
    rows = np.broadcast_to(visible, shape).reshape(-1)
    elements = None
    if info.op == "matmul_qk":
        batch = np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)), shape)
        elements = mask[batch.reshape(-1)[rows]]
    return Padding(rows, elements)
