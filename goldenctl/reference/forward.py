"""The reference's forward pass: the graph's ops executed over the steps of cases, one
sublayer's weights at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.steps import Step, attention_mask, position_ids
from goldenctl.model.graph import CACHE_LINKS, Op, Sublayer, with_past
from goldenctl.reference.clock import Clock
from goldenctl.reference.faulty import compute
from goldenctl.reference.kernels import KERNELS
from goldenctl.reference.weights import WeightLoader

VOCAB_SLICE_ROWS = 8192
# Receives (tensor's path, values [.., n], first column of the last axis).
Sink = Callable[[str, Tensor, int], None]


# Keys and values of a case's steps so far, [B, T, K, D], by "layers.00.attention/k_rope".
Cache = dict[str, Tensor]


@dataclass
class State:
    """One step of a case on its way through the model: the tensors that outlive a sublayer.

    ``sublayers`` are the step's own, by their place; ``cache`` is shared by the case's steps.
    """

    step: Step
    sublayers: Sequence[Sublayer]
    constants: dict[str, Tensor]
    hidden: Tensor
    cache: Cache
    clock: Clock = field(default_factory=Clock)
    best: Best | None = None

    def path(self, sublayer: Sublayer) -> str:
        return self.step.sublayer_path(sublayer.name)


@dataclass
class Best:
    """The most likely next token of each row so far: its logit and its id, [B]."""

    logit: Tensor
    token: Tensor

    def compete(self, logits: Tensor, first: int) -> None:
        """Take in the columns from ``first`` on of the last token's logits [B, n]; of equals
        the first wins, as in torch's argmax."""
        token = logits.argmax(-1)
        logit = logits.gather(-1, token[:, None])[:, 0]
        larger = logit > self.logit
        self.logit = torch.where(larger, logit, self.logit)
        self.token = torch.where(larger, token + first, self.token)


class Observer(Protocol):
    """Sees what the forward pass computes, sublayer by sublayer."""

    def embedding(self, sublayer: Sublayer, state: State) -> None:
        """After the embedding, which ``state.hidden`` is."""

    def sublayer(self, sublayer: Sublayer, state: State, recorded: Mapping[str, Tensor]) -> None:
        """After a sublayer; ``recorded`` are its input, constants and every op's output."""

    def logits(
        self, sublayer: Sublayer, state: State, hidden: Tensor, value: Tensor, first: int
    ) -> None:
        """After a slice of the logits: the columns from ``first`` on."""


@dataclass(frozen=True)
class Observers:
    """Several observers as one."""

    each: Sequence[Observer]

    def embedding(self, sublayer: Sublayer, state: State) -> None:
        for observer in self.each:
            observer.embedding(sublayer, state)

    def sublayer(self, sublayer: Sublayer, state: State, recorded: Mapping[str, Tensor]) -> None:
        for observer in self.each:
            observer.sublayer(sublayer, state, recorded)

    def logits(
        self, sublayer: Sublayer, state: State, hidden: Tensor, value: Tensor, first: int
    ) -> None:
        for observer in self.each:
            observer.logits(sublayer, state, hidden, value, first)


def start(
    step: Step,
    sublayers: Sequence[Sublayer],
    constants: dict[str, Tensor],
    ids: Tensor,
    cache: Cache,
    clock: Clock,
) -> State:
    """Return a step before its embedding; ``ids`` are int32 [B, S]."""
    tensors = {**constants, "position_ids": torch.from_numpy(position_ids(step)).to(ids.device)}
    mask = attention_mask(step)
    if mask is not None:
        tensors["attention_mask"] = torch.from_numpy(mask).to(ids.device)
    return State(step, sublayers, tensors, ids, cache, clock)


@torch.inference_mode()
def run_sublayer(
    place: int,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None = None,
) -> None:
    """Execute the sublayer at ``place`` for every state and hand each tensor to ``sink``.

    A case's steps follow each other in ``states``. Each state's ``hidden`` becomes the
    sublayer's output (the logits are only handed on). ``observer`` sees all of a sublayer's
    tensors, its weights still mapped.
    """
    sublayer = states[0].sublayers[place]  # other steps differ in what attention sees alone
    run = {"embedding": _run_embedding, "lm_head": _run_lm_head}.get(sublayer.name, _run_ops)
    run(place, states, loader, sink, observer)
    for name in sublayer.weights:
        loader.drop(name)


def apply(op: Op, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Compute one op from the named tensors and weights of its sublayer."""
    inputs = tuple(heads_merged(op, tensors[name]) for name in op.inputs)
    value = compute(op.kind, op.attrs, inputs, tuple(weights[name] for name in op.weights))
    head_dim = op.attrs.get("head_dim")
    return torch.unflatten(value, -1, (-1, head_dim)) if head_dim else value


def _run_ops(
    place: int,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    weights = {name: loader.load(name) for name in states[0].sublayers[place].weights}
    for state in states:
        sublayer = state.sublayers[place]
        path = state.path(sublayer)
        tensors = {**state.constants, "input": state.hidden}
        sink(f"{path}/input", state.hidden, 0)
        for op in sublayer.ops:
            compute = partial(apply, op, tensors, weights)
            value = state.clock.run(f"{path}/{op.output}", compute)
            tensors[op.output] = value
            links = [link for link, tap in CACHE_LINKS.items() if tap == op.output]
            for name in (op.output, *links):
                sink(f"{path}/{name}", value, 0)
            if links and (state.step.start or not state.step.is_last):
                key = f"{sublayer.name}/{op.output}"
                tensors[with_past(op.output)] = extend(state.cache, key, value, state.step)
        if observer is not None:
            observer.sublayer(sublayer, state, tensors)
        state.hidden = tensors["output"]


def extend(cache: Cache, key: str, value: Tensor, step: Step) -> Tensor:
    """Put a step's keys or values [B, S, K, D] after those of the steps before; return all.

    After a case's last step the cache lets go of them.
    """
    before = cache.pop(key, None)
    joined = value if before is None else torch.cat([before, value], dim=1)
    if not step.is_last:
        cache[key] = joined
    return joined


def _run_embedding(
    place: int,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    for state in states:
        sublayer = state.sublayers[place]
        (op,) = sublayer.ops
        name = f"{state.path(sublayer)}/{op.output}"
        state.hidden = state.clock.run(name, partial(_embed, op, state.hidden, loader))
        sink(name, state.hidden, 0)
        if observer is not None:
            observer.embedding(sublayer, state)


def _embed(op: Op, ids: Tensor, loader: WeightLoader) -> Tensor:
    """Look up only the rows of the table that are asked for."""
    distinct, inverse = np.unique(ids.cpu().numpy(), return_inverse=True)
    table = loader.gather(op.weights[0], distinct)  # [distinct ids, M]
    rows = torch.from_numpy(inverse).to(table.device)
    return KERNELS[op.kind](op.attrs, (rows,), (table,))


def _run_lm_head(
    place: int,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    (weight,) = states[0].sublayers[place].weights
    vocab = loader.row_count(weight)
    for first in range(0, vocab, VOCAB_SLICE_ROWS):
        rows = loader.rows(weight, first, min(first + VOCAB_SLICE_ROWS, vocab))
        for state in states:
            sublayer = state.sublayers[place]
            (op,) = sublayer.ops
            name = f"{state.path(sublayer)}/{op.output}"
            hidden = state.hidden[:, -1:] if op.attrs.get("last_token") else state.hidden
            compute = partial(KERNELS[op.kind], op.attrs, (hidden,), (rows,))
            value = state.clock.run(name, compute)
            sink(name, value, first)
            if state.step.case.generates:
                _compete(state, value[:, -1], first)
            if observer is not None:
                observer.logits(sublayer, state, hidden, value, first)


def _compete(state: State, logits: Tensor, first: int) -> None:
    if state.best is None:
        lowest = torch.full_like(logits[:, 0], -torch.inf)
        state.best = Best(lowest, torch.zeros_like(lowest, dtype=torch.int64))
    state.best.compete(logits, first)


def heads_merged(op: Op, value: Tensor) -> Tensor:
    """[B, S, H, D] -> [B, S, H * D] for the linear that follows the heads."""
    return value.flatten(2) if op.kind == "linear" and value.dim() == 4 else value
