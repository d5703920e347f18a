"""What is exact whatever the rounding: checked element by element, whatever the norms say.

What is masked has probability zero, a probability is in [0, 1], a row of them sums to one
within its rounding, and a lookup yields the very values that it found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.records.policy import Check

OPS = ("embedding", "causal_softmax")  # that any of this is known of
_BLOCK_ELEMENTS = 1 << 18
Values = NDArray[Any]


@dataclass(frozen=True)
class Broken:
    """A fact that does not hold: the check that it fails, and the sentence that says where."""

    check: Check
    message: str


def broken_fact(
    op: str,
    actual: Values,
    expected: Values,
    *,
    rows: NDArray[np.bool_] | None = None,
    keys: NDArray[np.bool_] | None = None,
    window: int = 0,
) -> Broken | None:
    """Return the first fact that a tensor of this op kind breaks; None when all hold.

    ``rows`` are those that count (all axes but the last, flat), ``keys`` [batch, key_token]
    the keys that are no padding; None for all. ``window`` is how many tokens a row sees, 0 for
    all. Rows that are not finite are left to the masks.
    """
    if op == "embedding":
        return _looked_up(actual, expected, rows)
    return _probabilities(actual, rows, keys, window) if op == "causal_softmax" else None


def _looked_up(actual: Values, expected: Values, rows: NDArray[np.bool_] | None) -> Broken | None:
    """A lookup in the same type is bit-equal, in a narrower one the rounded value."""
    if DTYPES[actual.dtype.name].eps < DTYPES[expected.dtype.name].eps:
        return None  # what a finer table holds is not known here
    with np.errstate(over="ignore"):  # float16 may not hold it
        differ = actual != expected.astype(actual.dtype)
    differ &= np.isfinite(actual.astype(np.float32)) & np.isfinite(expected.astype(np.float32))
    if rows is not None:
        differ &= rows.reshape(actual.shape[:-1])[..., None]
    wrong = np.argwhere(differ)
    if not len(wrong):
        return None
    batch, token, *_ = map(int, wrong[0])
    error = abs(float(actual[tuple(wrong[0])]) - float(expected[tuple(wrong[0])]))
    where = f"batch {batch}, token {token}"
    message = f"a lookup is exact, and {where} is not the table's row ({len(wrong)} elements)"
    return Broken(Check("exact", error, 0.0, float("inf")), message)


def _probabilities(
    actual: Values,
    rows: NDArray[np.bool_] | None,
    keys: NDArray[np.bool_] | None,
    window: int,
) -> Broken | None:
    token, key_token = actual.shape[-2:]
    for where, block in _blocks(actual, rows):
        batch, head, first = where
        numbers = np.arange(first, first + len(block))
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(block).all(axis=-1))
        if rows is not None:
            finite &= rows.reshape(actual.shape[:-1])[batch, head, numbers]
        own = (key_token - token) + numbers[:, None]
        hidden = np.arange(key_token) > own
        if window:
            hidden |= np.arange(key_token) <= own - window
        if keys is not None:
            hidden |= ~keys[batch]
        for test in (_visible, _outside, _unsummed):
            if found := test(block, finite, hidden, actual.dtype.name):
                check, row, said = found
                return Broken(check, f"batch {batch}, head {head}, token {first + row} {said}")
    return None


def _blocks(
    actual: Values, rows: NDArray[np.bool_] | None
) -> Iterator[tuple[tuple[int, int, int], NDArray[np.float32]]]:
    """Yield rows of [batch, head, token, key_token] as float32, and where they begin."""
    batches, heads, token, key_token = actual.shape
    step = max(_BLOCK_ELEMENTS // max(key_token, 1), 1)
    for batch in range(batches):
        for head in range(heads):
            for first in range(0, token, step):
                block = actual[batch, head, first : first + step]
                yield (batch, head, first), block.astype(np.float32)


_Found = tuple[Check, int, str]


def _visible(
    block: Values, counted: Values, hidden: NDArray[np.bool_], _dtype: str
) -> _Found | None:
    seen = (block != 0) & hidden & counted[:, None]
    if not seen.any():
        return None
    wrong = np.argwhere(seen)
    row, key = map(int, wrong[0])
    largest = float(np.abs(block[tuple(wrong.T)]).max())
    said = f"sees key {key}, which is masked: probability {float(block[row, key]):.2e}"
    return Check("masked", largest, 0.0, float("inf")), row, said


def _outside(
    block: Values, counted: Values, _hidden: NDArray[np.bool_], dtype: str
) -> _Found | None:
    limit = 1.0 + 4 * DTYPES[dtype].eps
    wrong = ((block < 0) | (block > limit)) & counted[:, None]
    if not wrong.any():
        return None
    row, key = map(int, np.argwhere(wrong)[0])
    value = float(block[row, key])
    said = f"gives key {key} the probability {value:.3g}, which is not in [0, 1]"
    return Check("probability", value, limit if value > 0 else 0.0, float("inf")), row, said


def _unsummed(
    block: Values, counted: Values, _hidden: NDArray[np.bool_], dtype: str
) -> _Found | None:
    """Each of T terms is rounded, twice in 16-bit kernels, or cut off; sums are in float32."""
    limit = 4 * DTYPES[dtype].eps + block.shape[-1] * DTYPES["float32"].eps
    off = np.where(counted, np.abs(block.sum(axis=-1, dtype=np.float64) - 1.0), 0.0)
    row = int(off.argmax()) if off.size else 0
    if not off.size or off[row] <= limit:
        return None
    total = float(block[row].sum(dtype=np.float64))
    said = f"has probabilities that sum to {total:.6g}, not 1"
    return Check("sum", float(off[row]), limit, float(off[row]) / limit), row, said
