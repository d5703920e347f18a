"""The oracle: each op again in a wider type, and from it the rounding budget of every row.

For each tensor and row (the last axis) four numbers are kept in three scopes:

- ``l2``, ``max``: how far the recorded result is from the truth, ||e - o|| and max |e - o|.
- ``floor_l2``, ``floor_max``: what rounding in the recorded type may do in any correct
  implementation, as one standard deviation (docs/budgets.md derives it).

The scopes say where the truth starts: ``op`` from the op's recorded inputs, ``sublayer`` from
the sublayer's recorded input, ``chain`` from the token ids. In the last two several *twins* of
the truth, to which every op adds noise of its own floor, show what upstream rounding becomes.

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
from goldenctl.model.graph import CACHE_LINKS, Sublayer, with_past
from goldenctl.reference.forward import Cache, Sink, State, apply, extend
from goldenctl.reference.fused import fused_budget, fused_ops
from goldenctl.reference.kernels import Noise, Unit, noise_of
from goldenctl.reference.twins import TWINS, l2_max, own_budget, twin_budget, with_noise
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
        loader: WeightLoader,
        dtype: str,
        sink: Sink,
        *,
        keep: bool,
        fused: bool = True,
        folder: str = "",
    ) -> None:
        self._loader = loader
        self._unit = Unit.of(dtype)
        self._narrow = TORCH_DTYPES[dtype]
        self._folder = folder
        self._wide = TORCH_DTYPES[oracle_dtype(dtype)]
        self._sink = sink
        self._keep = keep
        self._fused = fused
        # By step, [(1 + TWINS) * B, S, M]: truth and twins.
        self._chains: dict[str, Tensor] = {}
        self._caches: dict[str, Cache] = {}  # by case, the chains' own keys and values
        self._noise = torch.Generator().manual_seed(_TWIN_SEED)
        self._slices: dict[str, Tensor] = {}

    def embedding(self, sublayer: Sublayer, state: State) -> None:
        """The embedding is exact: its budget is what rounding to another dtype does."""
        path = state.path(sublayer)
        truth = self._rounded(state.hidden)
        off = l2_max(self._widened(state.hidden) - truth)
        scaled = "scale" in sublayer.ops[0].attrs and state.hidden.dtype != self._narrow
        # A scale is rounded to that type too, and so is its product.
        own = truth.abs() * (self._unit.store if scaled else 0.0)
        exact = torch.stack([*off, own.norm(dim=-1), own.amax(-1)], dim=-1)
        budget = torch.stack([exact] * SCOPE_COUNT).float()
        self._sink(f"{path}/{self._folder}budget/output", budget, 0)
        self._chains[state.step.path] = torch.cat([truth] * (1 + TWINS))
        if self._keep:
            self._sink(f"{path}/oracle/output", torch.stack([truth] * SCOPE_COUNT), 0)

    def sublayer(self, sublayer: Sublayer, state: State, recorded: Mapping[str, Tensor]) -> None:
        """Compute the truth of every op of a sublayer and hand on its budgets."""
        path = state.path(sublayer)
        weights = {name: self._loader.load(name) for name in sublayer.weights}
        mine = {name: self._rounded(value) for name, value in recorded.items()}
        stacked = {name: _stacked(name, value) for name, value in mine.items()}
        stacked["input"] = self._inputs(mine["input"], self._chains[state.step.path])
        for op in sublayer.ops:
            truth = apply(op, mine, weights)
            noise = noise_of(op, self._unit, mine, weights, truth)
            noisy = self._with_noise(apply(op, stacked, weights), noise)
            stacked[op.output] = noisy
            if with_past(op.output) in mine:
                key = f"{sublayer.name}/{op.output}"
                past = mine[with_past(op.output)][:, : state.step.start]
                stacked[with_past(op.output)] = self._with_past(key, past, noisy, state.step)
            widened = self._widened(recorded[op.output])
            budget = self._budget(widened, truth, noise.sigma, noisy)
            self._hand_on(path, op.output, budget, truth, noisy)
        if self._fused and (ops := fused_ops(sublayer)):
            widened = self._widened(recorded[ops[-1].output])
            budget = fused_budget(sublayer, self._unit, mine, widened)
            self._sink(f"{path}/{self._folder}fused/budget/{ops[-1].output}", budget, 0)
        self._chains[state.step.path] = stacked["output"].chunk(2)[1]

    def logits(
        self, sublayer: Sublayer, state: State, hidden: Tensor, value: Tensor, first: int
    ) -> None:
        """Take in the logits ``value`` of the columns from ``first`` on."""
        (op,) = sublayer.ops
        name = f"{state.path(sublayer)}/{self._folder}budget/output"
        weights = {op.weights[0]: self._loader.rows(op.weights[0], first, first + value.shape[-1])}
        chain = self._chains[state.step.path]
        chain = chain[:, -hidden.shape[1] :]
        mine = {"input": self._rounded(hidden)}
        stacked = {"input": self._inputs(mine["input"], chain)}
        truth = apply(op, mine, weights)
        noise = noise_of(op, self._unit, mine, weights, truth)
        noisy = self._with_noise(apply(op, stacked, weights), noise)
        part = self._budget(self._widened(value), truth, noise.sigma, noisy)
        before = self._slices.get(name)
        self._slices[name] = part if before is None else _joined(before, part)
        if self._keep:
            self._sink(name.replace("/budget/", "/oracle/"), _truths(truth, noisy), first)

    def finish(self) -> None:
        """Hand on what came in slices."""
        for name, budget in self._slices.items():
            self._sink(name, budget, 0)

    def state(self) -> dict[str, Tensor]:
        """What the oracle carries from sublayer to sublayer, by name."""
        caches = {f"{c}//{k}": v for c, cache in self._caches.items() for k, v in cache.items()}
        return {
            "noise": self._noise.get_state(),
            **{f"chain//{step}": value for step, value in self._chains.items()},
            **{f"cache//{key}": value for key, value in caches.items()},
            **{f"slice//{name}": value for name, value in self._slices.items()},
        }

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """Carry on what ``state`` returned."""
        self._noise.set_state(state["noise"])
        for name, value in state.items():
            kind, *keys = name.split("//")
            if kind == "chain":
                self._chains[keys[0]] = value.to(device)
            elif kind == "cache":
                self._caches.setdefault(keys[0], {})[keys[1]] = value.to(device)
            elif kind == "slice":
                self._slices[keys[0]] = value.to(device)

    def _inputs(self, recorded: Tensor, chain: Tensor) -> Tensor:
        """[2 * (1 + TWINS) * B, S, M]: truth and twins of the sublayer, of the chain."""
        return torch.cat([recorded] * (1 + TWINS) + [chain])

    def _with_past(self, key: str, past: Tensor, stacked: Tensor, step: Step) -> Tensor:
        """Put the keys or values of all passes after the past that each has: the sublayer's
        what was recorded, the chain's their own."""
        isolated, chained = stacked.chunk(2)
        cache = self._caches.setdefault(step.case.name, {})
        chain = extend(cache, key, chained, step)
        recorded = torch.cat([past] * (1 + TWINS))
        return torch.cat([torch.cat([recorded, isolated], dim=1), chain])

    def _widened(self, value: Tensor) -> Tensor:
        return value.to(self._wide) if value.is_floating_point() else value

    def _rounded(self, value: Tensor) -> Tensor:
        """What a replay in this oracle's dtype makes of a recorded tensor, in the wide type."""
        return self._widened(value.to(self._narrow) if value.is_floating_point() else value)

    def _with_noise(self, exact: Tensor, noise: Noise) -> Tensor:
        return with_noise(_by_scope(exact), noise, self._draw).flatten(0, 2)

    def _draw(self, like: Tensor) -> Tensor:
        draw = torch.randn(like.shape, generator=self._noise, dtype=torch.float32)
        return draw.to(like.device, like.dtype)

    def _budget(self, recorded: Tensor, truth: Tensor, sigma: Tensor, stacked: Tensor) -> Tensor:
        """Return ``[scope, ..., 4]`` float32: l2, max, floor_l2, floor_max of every row."""
        own = own_budget(recorded, truth, sigma)
        scopes = [twin_budget(recorded, passes, own) for passes in _by_scope(stacked)]
        return torch.stack([own, *scopes]).float()

    def _hand_on(self, path: str, tap: str, budget: Tensor, truth: Tensor, stacked: Tensor) -> None:
        for name in (tap, *(link for link, target in CACHE_LINKS.items() if target == tap)):
            self._sink(f"{path}/{self._folder}budget/{name}", budget, 0)
            if self._keep:
                self._sink(f"{path}/oracle/{name}", _truths(truth, stacked), 0)


def _stacked(name: str, value: Tensor) -> Tensor:
    """Repeat a step's tensor for all passes; tables are shared."""
    return value if name.startswith("rope_") else torch.cat([value] * (2 * (1 + TWINS)))


def _by_scope(stacked: Tensor) -> Tensor:
    """View ``[2 * (1 + TWINS) * B, ...]`` as ``[2, 1 + TWINS, B, ...]``, the truth first."""
    return torch.unflatten(stacked, 0, (2, 1 + TWINS, -1))


def _truths(own: Tensor, stacked: Tensor) -> Tensor:
    """Return ``[scope, ...]``: the truths without their twins."""
    return torch.cat([own[None], _by_scope(stacked)[:, 0]])


def _joined(a: Tensor, b: Tensor) -> Tensor:
    """Join the budgets of two column slices: norms add in squares, maxima compete."""
    both = torch.stack([a, b])
    joined = both.amax(0)
    joined[..., 0::2] = both.double().pow(2).sum(0).sqrt().float()[..., 0::2]
    return joined
