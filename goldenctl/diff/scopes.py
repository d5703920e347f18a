"""Which recorded budget a tensor of a run is judged by: where its truth starts.

A replay mode says what an op was given. A fused attention kernel is an exception in mode
``op``: it gets recorded queries, keys and values, never recorded probs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from goldenctl.diff.tolerance import Scores
from goldenctl.golden.calls import MODULE
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import (
    BUDGET_SCOPES,
    TensorInfo,
    budget_path,
    fused_budget_path,
)
from goldenctl.model.graph import FUSED_OP, FUSED_TAPS
from goldenctl.records.structure import MODE as TRACE_MODE

NO_FUSED_BUDGET = (
    "a fused kernel's context cannot be judged from its own inputs by this golden, so the "
    "budget of the whole sublayer judged it; record it again for a sharper one"
)


@dataclass(frozen=True)
class Stored:
    """A budget in a golden: its tensor's name, how many scopes that has, and which one counts.

    ``truth`` tells whether a kept truth of that scope is the one to judge from, ``note`` what
    is to be said of the choice.
    """

    name: str
    scopes: int
    scope: int
    truth: bool = True
    note: str = ""


def budget_mode(mode: str) -> str:
    """Return the replay mode whose budgets are a run's: a traced engine computes as a chain, a
    call of a module as a sublayer does."""
    return {TRACE_MODE: "chain", MODULE: "sublayer"}.get(mode, mode)


def stored_budget(
    golden: GoldenFile, info: TensorInfo, actual_dtype: str, *, scope: str, fused: bool
) -> Stored | None:
    """Return the budget of one of the golden's tensors for a result of ``actual_dtype`` that was
    computed from what ``scope`` says; None where none was recorded."""
    scope = budget_mode(scope)
    name = budget_path(info.name, recorded=info.dtype, actual=actual_dtype)
    if scope not in BUDGET_SCOPES or name not in golden.tensors:
        return None
    if not (fused and scope == "op"):
        return Stored(name, len(BUDGET_SCOPES), BUDGET_SCOPES.index(scope))
    own = fused_budget_path(info.name, recorded=info.dtype, actual=actual_dtype)
    if own in golden.tensors:
        return Stored(own, 1, 0, truth=False)
    wider = BUDGET_SCOPES.index("sublayer")
    return Stored(name, len(BUDGET_SCOPES), wider, truth=False, note=NO_FUSED_BUDGET)


def is_fused(run: GoldenFile, info: TensorInfo) -> bool:
    """Whether the run's tensor comes from a fused attention kernel: it has no probs."""
    if info.op != FUSED_OP:
        return False
    folder = info.place.group
    lacking = set(run.recipe.get("not_computed", ()))
    probs = FUSED_TAPS[-1]
    return run.recipe.get("attention") == "sdpa" or bool({probs, f"{folder}/{probs}"} & lacking)


def recorded_scores(golden: GoldenFile, folder: str) -> Scores | None:
    """Return what the softmax inside a fused kernel was given, as the golden has it."""
    info = golden.tensors.get(f"{folder}/{FUSED_TAPS[0]}")
    if info is None:
        return None
    largest = float(np.abs(golden.verify(info.name)).max(initial=0.0))
    return Scores(largest, info.shape[-1])
