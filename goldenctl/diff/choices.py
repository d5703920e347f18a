"""A router's near ties: where an engine chose another expert that rounding alone may choose.

A choice is admissible where the logits of what it takes and of what it leaves lie no further
apart than rounding may move two of them: from recorded logits by what the softmax rounds, else by
the budget of the logits. Such a row of ``routing`` is judged against its own choice; what
follows from it elsewhere is not judged, and counted. Any other choice fails as any other error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, row_limits
from goldenctl.diff.scopes import stored_budget
from goldenctl.dtypes import DTYPES
from goldenctl.golden.composed import scope_of
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.places import composed_name, is_composed

Values = NDArray[Any]
Rows = NDArray[np.bool_]
OTHERS = "follows from other experts, which rounding alone may choose"
ROUTE, LOGITS, ROUTING = "route", "router_logits", "routing"
# What a layer's table of tolerances allows its logits, in epsilons, where there is no budget.
_TABLE_EPS = 4.0


@dataclass(frozen=True)
class Choices:
    """What two files hold of one router: weights of all experts, [batch, token, expert]."""

    expected: Values
    actual: Values
    logits: Values
    limit: Values  # [batch, token]: how far apart two logits may be that rounding swaps

    @property
    def others(self) -> Rows:
        """The tokens that have other experts, which rounding may choose: [batch, token]."""
        mine, right = self.actual != 0, self.expected != 0
        left = np.where(right & ~mine, self.logits, -np.inf).max(-1)
        taken = np.where(mine & ~right, self.logits, np.inf).min(-1)
        with np.errstate(invalid="ignore"):
            near = left - taken <= self.limit
        other: Rows = (mine != right).any(-1) & (mine.sum(-1) == right.sum(-1)) & near
        return other

    def expected_of(self, *, renormalise: bool) -> Values:
        """Return the expected weights, those of the engine's own choice where it may have it."""
        others = self.others
        if not others.any():
            return self.expected
        powers = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        mine = np.where(self.actual != 0, powers, 0.0)
        weights = mine / (mine if renormalise else powers).sum(-1, keepdims=True)
        expected: Values = np.where(others[..., None], weights, self.expected)
        return expected.astype(self.expected.dtype)


class OtherChoices:
    """Where a run in ``mode`` took other experts than its golden, and what follows from them."""

    def __init__(self, golden: GoldenFile, run: GoldenFile, mode: str) -> None:
        self._golden = golden
        self._run = run
        self._mode = mode
        routers = [info for info in golden.tensors.values() if info.op == ROUTE]
        self._routers = [info for info in routers if info.role == "tap"]
        self._found: dict[tuple[str, str], Choices | None] = {}

    def of(self, info: TensorInfo, actual: TensorInfo) -> Choices | None:
        """Return the choices that a router's weights are of; None for any other tensor."""
        if info.op != ROUTE:
            return None
        return self._choices(info.place.group, actual, scope_of(self._mode, actual.name))

    def followed(self, info: TensorInfo, actual: TensorInfo) -> Rows | None:
        """Return which rows of a tensor follow from other experts than the golden's; None where
        none does. In a chain all that comes later follows, of the same token and later ones."""
        scope = scope_of(self._mode, actual.name)
        if not self._routers or scope == "op":
            return None
        rows: Rows | None = None
        for router in self._routers:
            mine = router.place.group == info.place.group and _follows(info)
            before = scope == "chain" and router.case == info.case and router.order < info.order
            if not mine and not (before and router.place.group != info.place.group):
                continue
            others = self._others(router, actual, scope)
            if others is None or not others.any():
                continue
            if not mine:
                others = np.logical_or.accumulate(others, axis=1)
                if router.step != info.step:
                    others = others[:, -1:]
            spread = _spread(others, info)
            if spread is not None:
                rows = spread if rows is None else rows | spread
        return rows

    def _others(self, router: TensorInfo, actual: TensorInfo, scope: str) -> Rows | None:
        found = self._choices(router.place.group, actual, scope)
        return None if found is None else found.others

    def _choices(self, folder: str, actual: TensorInfo, scope: str) -> Choices | None:
        name = f"{folder}/{ROUTING}"
        mine = composed_name(name) if is_composed(actual.name) else name
        if (mine, scope) not in self._found:
            self._found[mine, scope] = self._read(folder, mine, scope)
        return self._found[mine, scope]

    def _read(self, folder: str, mine: str, scope: str) -> Choices | None:
        golden, run, logits_name = self._golden, self._run, f"{folder}/{LOGITS}"
        if mine not in run.tensors or logits_name not in golden.tensors:
            return None
        logits = golden.map(logits_name).astype(np.float64)
        if run.tensors[mine].shape != logits.shape:
            return None
        limit = _limit(golden, golden.info(logits_name), logits, run.tensors[mine].dtype, scope)
        expected = golden.map(f"{folder}/{ROUTING}")
        return Choices(expected, run.map(mine).astype(np.float64), logits, limit)


def _limit(golden: GoldenFile, info: TensorInfo, logits: Values, dtype: str, scope: str) -> Values:
    rows = logits.reshape(-1, logits.shape[-1])
    stored = stored_budget(golden, info, dtype, scope=scope, fused=False)
    limit: Values
    if scope == "op":
        limit = _TABLE_EPS * DTYPES["float32"].eps * (1.0 + np.ptp(rows, axis=-1))
    elif stored is None:
        limit = _TABLE_EPS * DTYPES[dtype].eps * np.abs(rows).max(-1)
    else:
        budget = Budget.of(golden.verify(stored.name), stored.scope)
        limit = row_limits(budget, np.linalg.norm(rows, axis=-1), from_truth=False)[1]
    return 2.0 * limit.reshape(logits.shape[:-1])


def _follows(info: TensorInfo) -> bool:
    """Whether a tensor of a sublayer with experts is computed from the choice."""
    return info.tap in ("experts", "output") or info.tap.startswith("expert_")


def _spread(tokens: Rows, info: TensorInfo) -> Rows | None:
    """Return [batch, token] rows, or [batch, 1] ones, as all rows of a tensor, flat."""
    shape, dims = info.shape[:-1], info.dims[:-1]
    if "batch" not in dims or not {"token", "last_token"} & set(dims):
        return None
    if "last_token" in dims:
        tokens = tokens[:, -1:]
    sizes = {"batch": tokens.shape[0], "token": tokens.shape[1]}
    spread = tokens.reshape([sizes.get(dim, 1) for dim in dims])
    rows: Rows = np.broadcast_to(spread, shape).reshape(-1)
    return rows
