"""Runs that must fail: how a pair is bent, and what is then said of which tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pairs import ATTENTION, Q_PROJ, STEP, Pair

HEAD = f"{STEP}/lm_head/output"
EMBEDDING = f"{STEP}/embedding/output"


def put(name: str, value: float) -> Callable[[Pair], None]:
    """Write one element of the run."""

    def bend(pair: Pair) -> None:
        pair.run_arrays[name].flat[5] = value

    return bend


def scale(pair: Pair) -> None:
    pair.run_arrays[Q_PROJ] *= np.float32(1.02)


def zero_golden(pair: Pair) -> None:
    """An all-zero golden has no scale: only zero will do."""
    pair.golden_arrays[Q_PROJ][:] = 0


def infinite_golden(pair: Pair) -> None:
    pair.golden_arrays[Q_PROJ].flat[5] = math.inf
    pair.run_arrays[Q_PROJ].flat[5] = -math.inf


def nan_in_golden(pair: Pair) -> None:
    pair.golden_arrays[Q_PROJ].flat[5] = math.nan


def all_nan(pair: Pair) -> None:
    for name in pair.run_arrays:
        pair.run_arrays[name][:] = math.nan


def missing(pair: Pair) -> None:
    del pair.run_arrays[Q_PROJ]


def no_outputs(pair: Pair) -> None:
    pair.run_arrays.clear()


def extra(pair: Pair) -> None:
    pair.run_arrays[f"{ATTENTION}/unheard_of"] = np.ones(3, np.float32)


def transposed(pair: Pair) -> None:
    pair.run_arrays[Q_PROJ] = pair.run_arrays[Q_PROJ].transpose(0, 2, 1, 3)


def integers(pair: Pair) -> None:
    pair.run_arrays[Q_PROJ] = pair.run_arrays[Q_PROJ].astype(np.int32)


def crashed(pair: Pair) -> None:
    pair.failures[ATTENTION] = {"reason": "signal", "tap": "q_proj", "message": "SIGSEGV"}


def off_by_one(pair: Pair) -> None:
    pair.run_arrays[EMBEDDING].flat[0] = np.nextafter(pair.run_arrays[EMBEDDING].flat[0], 9)


class Bad(NamedTuple):
    bend: Callable[[Pair], None]
    name: str
    state: str
    message: str


BAD = {
    "a scale of 1.02": Bad(scale, Q_PROJ, "failed", ""),
    "one element": Bad(put(Q_PROJ, 1.0), Q_PROJ, "failed", ""),
    "a NaN": Bad(put(Q_PROJ, math.nan), Q_PROJ, "failed", "1 NaN and 0 Inf, expected 0 and 0"),
    "an Inf": Bad(put(HEAD, -math.inf), HEAD, "failed", "0 NaN and 1 Inf, expected 0 and 0"),
    "the other Inf": Bad(infinite_golden, Q_PROJ, "failed", "0 NaN and 1 Inf, expected 0 and 1"),
    "NaN in the golden": Bad(nan_in_golden, Q_PROJ, "failed", "0 NaN and 0 Inf, expected 1 and 0"),
    "all NaN": Bad(all_nan, EMBEDDING, "failed", "32 NaN and 0 Inf, expected 0 and 0"),
    "an all-zero golden": Bad(zero_golden, Q_PROJ, "failed", ""),
    "an embedding that is no copy": Bad(
        off_by_one,
        EMBEDDING,
        "failed",
        "a lookup is exact, and batch 0, token 0 is not the table's row (1 elements)",
    ),
    "missing": Bad(missing, Q_PROJ, "missing", "not in the run"),
    "no outputs": Bad(no_outputs, EMBEDDING, "missing", "not in the run"),
    "extra": Bad(extra, f"{ATTENTION}/unheard_of", "extra", "not in the golden"),
    "another shape": Bad(
        transposed,
        Q_PROJ,
        "shape_mismatch",
        "expected shape [1, 4, 2, 4], got [1, 2, 4, 4]: the two architectures differ",
    ),
    "integers": Bad(integers, Q_PROJ, "dtype_mismatch", "expected dtype float32, got int32"),
    "crashed": Bad(crashed, Q_PROJ, "crashed", "signal at q_proj: SIGSEGV"),
}
