"""The rule for padding: rows of padding tokens have no meaning, so they are left out.

A padding token sees no token at all; what its row holds is up to the implementation, and no
other token sees it. Its rows are left out of every score, budget and verdict, and how many
were is in the report. For the same reason the scores of padding keys count as equal: they
are masked right after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.recipe import Recipe
from goldenctl.golden.schema import TensorInfo
from goldenctl.golden.steps import attention_mask, steps
from goldenctl.model.case import Case

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

    def blanked(self, values: Values) -> Values:
        """Return the values in their shape, with zero where nothing counts."""
        return values if self.rows is None else self.equalised(values, np.zeros_like(values))

    def only(self, rows: NDArray[np.bool_]) -> Padding:
        """Leave out further rows."""
        if self.rows is None:
            return Padding(rows)
        elements = None if self.elements is None else self.elements[rows[self.rows]]
        return Padding(self.rows & rows, elements)

    def row_index(self, row: int) -> int:
        """Return the place in the whole tensor of a row that counts."""
        if self.rows is None:
            return row
        return int(np.flatnonzero(self.rows)[row])


def padding_of(golden: GoldenFile, info: TensorInfo) -> Padding:
    """Return what of a golden's tensor counts."""
    mask = f"{_step(info)}/attention_mask"
    return padding_by(golden.map(mask), info) if mask in golden.tensors else Padding()


def recipe_masks(recipe: Recipe) -> dict[str, Values]:
    """Return the attention mask [B, T] of each step that has one, by the step's path: what the
    golden holds, from its recipe alone. The recipe has to hold the token ids."""
    with_ids = [case for case in recipe.cases if case.token_ids]
    cases = [Case.from_recipe(msgspec.to_builtins(c), c.token_ids) for c in with_ids]
    found = {step.path: attention_mask(step) for case in cases for step in steps(case)}
    return {path: mask for path, mask in found.items() if mask is not None}


def padding_by_recipe(masks: dict[str, Values], info: TensorInfo) -> Padding:
    """Return what of a tensor counts, by the ``recipe_masks`` of its golden."""
    mask = masks.get(_step(info))
    return padding_by(mask, info) if mask is not None else Padding()


def padding_by(stored: Values, info: TensorInfo) -> Padding:
    """Return what of a tensor counts in a step of that attention mask, [B, T].

    Raises DamagedError when the two do not fit.
    """
    mask = stored.astype(bool)
    shape, dims = info.shape[:-1], info.dims[:-1]
    if "token" not in dims:
        return Padding()
    token = shape[dims.index("token")]
    if mask.ndim != 2 or mask.shape[0] != shape[0] or mask.shape[1] < token:
        message = f"{info.name}: its step's attention_mask {list(mask.shape)} does not fit"
        raise DamagedError(message, hint="record it again")
    if mask.all():
        return Padding()
    own = mask[:, -token:]  # [B, S]
    visible = own.reshape(
        [size if dim in ("batch", "token") else 1 for dim, size in zip(dims, shape, strict=True)]
    )
    rows = np.broadcast_to(visible, shape).reshape(-1)
    elements = None
    if info.op == "matmul_qk":
        batch = np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)), shape)
        elements = mask[batch.reshape(-1)[rows]]
    return Padding(rows, elements)


def _step(info: TensorInfo) -> str:
    return info.place.step_path
