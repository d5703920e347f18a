"""The oracle: each op again in a wider type, and from it the rounding budget of every row.

For each tensor and row (the last axis) four numbers are kept in three scopes:

- ``l2``, ``max``: how far the recorded result is from the truth, ||e - o|| and max |e - o|.
- ``floor_l2``, ``floor_max``: what rounding in the recorded type may do in any correct
  implementation, as one standard deviation (docs/budgets.md derives it).

The scopes say where the truth starts: ``op`` from the op's recorded inputs, ``sublayer`` from
the sublayer's recorded input, ``chain`` from the token ids. In the last two several *twins* of
the truth, to which every op adds noise of its own floor, show what upstream rounding becomes.

Only the truth of scope ``op`` is computed in the wide type. The truths of the other scopes, and
all twins, are carried as their moves from the recorded result (``reference.response``), a span of
tokens at a time. Where the recorded result is not finite they are moves from the truth of scope
``op``, which may be: float16 scores overflow in PyTorch alone.

A budget may also be for results in another dtype than the recorded one. The truth then starts
from the recorded inputs and the weights rounded to that dtype, as a replay in it does, and
``l2`` and ``max`` say how far the recorded result is from there: what that rounding alone does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.schema import BUDGET_SCOPES
from goldenctl.golden.steps import Step
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import CACHE_LINKS, Sublayer
from goldenctl.reference.carried import Carried, Found, Types, Weights
from goldenctl.reference.forward import Cache, Sink, State, extend
from goldenctl.reference.rounding import Unit, squared
from goldenctl.reference.twins import PASSES, Draws, l2_max, moves_dtype, product_dtype
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader

SCOPE_COUNT = len(BUDGET_SCOPES)
_TWIN_SEED = 20_26


class Oracle:
    """Follows a recording and hands every tensor's budget to ``sink``.

    ``dtype`` is that of the results which the budget is for. ``keep`` also hands on the truth
    of each scope, ``[scope, *shape]``; ``fused`` adds the budget of fused attention kernels;
    ``folder`` is where in a sublayer's group the budgets go.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: str,
        device: str,
        sink: Sink,
        *,
        keep: bool,
        fused: bool = True,
        folder: str = "",
    ) -> None:
        wide, light = oracle_dtype(dtype), product_dtype(dtype, device)
        self._wide = WeightLoader(checkpoint, wide, device, through=dtype)
        other = WeightLoader(checkpoint, light, device, through=dtype)
        self._light = self._wide if light == wide else other
        draws = Draws(_TWIN_SEED, TORCH_DTYPES[moves_dtype(dtype)], device)
        self._types = Types(Unit.of(dtype), TORCH_DTYPES[dtype], TORCH_DTYPES[wide], draws)
        self._folder = folder
        self._sink = sink
        self._keep = keep
        self._fused = fused
        self._squares: dict[tuple[str, int], Tensor] = {}  # of one sublayer's weights
        # By step, [1 + TWINS, B, S, M]: the moves of the chain's truth and twins.
        self._chains: dict[str, Tensor] = {}
        self._caches: dict[str, Cache] = {}  # by case, those of its keys and values
        self._slices: dict[str, Tensor] = {}

    def embedding(self, sublayer: Sublayer, state: State) -> None:
        """The embedding is exact: its budget is what rounding to another dtype does."""
        path, types = state.path(sublayer), self._types
        truth = types.rounded(state.hidden)
        off = l2_max(types.widened(state.hidden) - truth)
        scaled = "scale" in sublayer.ops[0].attrs and state.hidden.dtype != types.narrow
        # A scale is rounded to that type too, and so is its product.
        own = truth.abs() * (types.unit.store if scaled else 0.0)
        exact = torch.stack([*off, own.norm(dim=-1), own.amax(-1)], dim=-1)
        budget = torch.stack([exact] * SCOPE_COUNT).float()
        self._sink(f"{path}/{self._folder}budget/output", budget, 0)
        zeros = torch.zeros_like(truth, dtype=types.draws.dtype)
        self._chains[state.step.path] = torch.stack([zeros] * PASSES)
        if self._keep:
            self._sink(f"{path}/oracle/output", torch.stack([truth] * SCOPE_COUNT), 0)

    def sublayer(self, sublayer: Sublayer, state: State, recorded: Mapping[str, Tensor]) -> None:
        """Compute the truth of every op of a sublayer and hand on its budgets."""
        path, step = state.path(sublayer), state.step
        wide = {name: self._wide.load(name) for name in sublayer.weights}
        light = {name: self._light.load(name) for name in sublayer.weights}
        weights = Weights(wide, light, self._squared(light))

        def join(tap: str, moves: Tensor) -> Tensor:
            return self._joined_moves(f"{sublayer.name}/{tap}", moves, step)

        carried = Carried(sublayer, recorded, weights, self._types, self._chains[step.path])
        found = carried.run(join, keep=self._keep, fused=self._fused)
        self._hand_on(path, found)
        assert found.chain is not None
        self._chains[step.path] = found.chain

    def logits(
        self, sublayer: Sublayer, state: State, hidden: Tensor, value: Tensor, first: int
    ) -> None:
        """Take in the logits ``value`` of the columns from ``first`` on."""
        (op,) = sublayer.ops
        name = f"{state.path(sublayer)}/{self._folder}budget/output"
        rows = (op.weights[0], first, first + value.shape[-1])
        wide, light = ({op.weights[0]: each.rows(*rows)} for each in (self._wide, self._light))
        weights = Weights(wide, light, self._squared(light, first))
        chain = self._chains[state.step.path][:, :, -hidden.shape[1] :]
        recorded = {"input": hidden, "output": value}
        carried = Carried(sublayer, recorded, weights, self._types, chain)
        found = carried.run(lambda _tap, moves: moves, keep=self._keep, fused=False)
        part, before = found.budgets["output"], self._slices.get(name)
        self._slices[name] = part if before is None else _joined(before, part)
        if self._keep:
            self._sink(name.replace("/budget/", "/oracle/"), found.truths["output"], first)

    def finish(self) -> None:
        """Hand on what came in slices."""
        for name, budget in self._slices.items():
            self._sink(name, budget, 0)

    def state(self) -> dict[str, Tensor]:
        """What the oracle carries from sublayer to sublayer, by name."""
        caches = {f"{c}//{k}": v for c, cache in self._caches.items() for k, v in cache.items()}
        return {
            "noise": self._types.draws.state(),
            **{f"chain//{step}": value for step, value in self._chains.items()},
            **{f"cache//{key}": value for key, value in caches.items()},
            **{f"slice//{name}": value for name, value in self._slices.items()},
        }

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """Carry on what ``state`` returned."""
        self._types.draws.restore(state["noise"])
        for name, value in state.items():
            kind, *keys = name.split("//")
            if kind == "chain":
                self._chains[keys[0]] = value.to(device)
            elif kind == "cache":
                self._caches.setdefault(keys[0], {})[keys[1]] = value.to(device)
            elif kind == "slice":
                self._slices[keys[0]] = value.to(device)

    def _squared(self, weights: Mapping[str, Tensor], first: int = 0) -> dict[str, Tensor]:
        """Return squared weights; steps that follow each other share them."""
        keys = {(name, first): weight for name, weight in weights.items()}
        if keys.keys() != self._squares.keys():
            self._squares.clear()
            self._squares |= {key: squared(self._types.unit, w) for key, w in keys.items()}
        return {name: square for (name, _), square in self._squares.items()}

    def _joined_moves(self, key: str, moves: Tensor, step: Step) -> Tensor:
        """Put the chain's keys or values of earlier steps before this step's."""
        cache = self._caches.setdefault(step.case.name, {})
        joined = extend(cache, key, moves.flatten(0, 1), step)
        return torch.unflatten(joined, 0, (PASSES, -1))

    def _hand_on(self, path: str, found: Found) -> None:
        for tap, budget in found.budgets.items():
            links = (link for link, target in CACHE_LINKS.items() if target == tap)
            for name in (tap, *links):
                self._sink(f"{path}/{self._folder}budget/{name}", budget, 0)
                if self._keep:
                    self._sink(f"{path}/oracle/{name}", found.truths[tap], 0)
        for tap, budget in found.fused.items():
            self._sink(f"{path}/{self._folder}fused/budget/{tap}", budget, 0)


def _joined(a: Tensor, b: Tensor) -> Tensor:
    """Join the budgets of two column slices: norms add in squares, maxima compete."""
    both = torch.stack([a, b])
    joined = both.amax(0)
    joined[..., 0::2] = both.double().pow(2).sum(0).sqrt().float()[..., 0::2]
    return joined
