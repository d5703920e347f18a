"""Owns the reference's forward pass: the graph's ops executed over the cases, one sublayer's
weights at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.schema import sublayer_path
from goldenctl.model.graph import CACHE_LINKS, Op, Sublayer
from goldenctl.model.tokens import Case
from goldenctl.reference.faulty import compute
from goldenctl.reference.ops import KERNELS
from goldenctl.reference.weights import WeightLoader

VOCAB_SLICE_ROWS = 8192
# Receives (tensor's path, values [.., n], first column of the last axis).
Sink = Callable[[str, Tensor, int], None]


@dataclass
class State:
    """One case on its way through the model: the tensors that outlive a sublayer."""

    case: Case
    constants: dict[str, Tensor]
    hidden: Tensor
    times_ns: dict[str, int] = field(default_factory=dict)


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


def start(case: Case, constants: dict[str, Tensor], device: str) -> State:
    """Return a case before its embedding; positions count from 0."""
    ids = torch.tensor(case.token_ids, dtype=torch.int32, device=device)  # [B, S]
    positions = torch.arange(ids.shape[1], dtype=torch.int32, device=device).expand(ids.shape)
    return State(case, {**constants, "position_ids": positions.contiguous()}, ids)


@torch.inference_mode()
def run_sublayer(
    sublayer: Sublayer,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None = None,
) -> None:
    """Execute one sublayer for every case and hand each tensor it yields to ``sink``.

    Each state's ``hidden`` becomes the sublayer's output (the logits are only handed on).
    ``observer`` sees all of a sublayer's tensors, its weights still mapped.
    """
    run = {"embedding": _run_embedding, "lm_head": _run_lm_head}.get(sublayer.name, _run_ops)
    run(sublayer, states, loader, sink, observer)
    for name in sublayer.weights:
        loader.drop(name)


def apply(
    sublayer: Sublayer, op: Op, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Tensor:
    """Compute one op of a sublayer from its named tensors and weights."""
    inputs = tuple(heads_merged(op, tensors[name]) for name in op.inputs)
    value = compute(op.kind, op.attrs, inputs, tuple(weights[name] for name in op.weights))
    if op.kind == "linear" and "head_dim" in sublayer.dims(op.output):
        return torch.unflatten(value, -1, (-1, tensors["rope_cos"].shape[-1] * 2))
    return value


def _run_ops(
    sublayer: Sublayer,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    weights = {name: loader.load(name) for name in sublayer.weights}
    for state in states:
        path = sublayer_path(state.case.name, 0, sublayer.name)
        tensors = {**state.constants, "input": state.hidden}
        sink(f"{path}/input", state.hidden, 0)
        for op in sublayer.ops:
            started = _now_ns(state.hidden)
            value = apply(sublayer, op, tensors, weights)
            state.times_ns[f"{path}/{op.output}"] = _now_ns(value) - started
            tensors[op.output] = value
            links = (link for link, tap in CACHE_LINKS.items() if tap == op.output)
            for name in (op.output, *links):
                sink(f"{path}/{name}", value, 0)
        if observer is not None:
            observer.sublayer(sublayer, state, tensors)
        state.hidden = tensors["output"]


def _run_embedding(
    sublayer: Sublayer,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    (op,) = sublayer.ops
    for state in states:
        name = f"{sublayer_path(state.case.name, 0, sublayer.name)}/{op.output}"
        started = time.perf_counter_ns()
        ids, inverse = np.unique(state.hidden.cpu().numpy(), return_inverse=True)
        table = loader.gather(op.weights[0], ids)  # [distinct ids, M]
        rows = torch.from_numpy(inverse).to(table.device)
        state.hidden = KERNELS[op.kind](op.attrs, (rows,), (table,))
        state.times_ns[name] = time.perf_counter_ns() - started
        sink(name, state.hidden, 0)
        if observer is not None:
            observer.embedding(sublayer, state)


def _run_lm_head(
    sublayer: Sublayer,
    states: Sequence[State],
    loader: WeightLoader,
    sink: Sink,
    observer: Observer | None,
) -> None:
    (op,) = sublayer.ops
    (weight,) = op.weights
    vocab = loader.row_count(weight)
    for first in range(0, vocab, VOCAB_SLICE_ROWS):
        rows = loader.rows(weight, first, min(first + VOCAB_SLICE_ROWS, vocab))
        for state in states:
            name = f"{sublayer_path(state.case.name, 0, sublayer.name)}/{op.output}"
            hidden = state.hidden[:, -1:] if op.attrs.get("last_token") else state.hidden
            started = _now_ns(hidden)
            value = KERNELS[op.kind](op.attrs, (hidden,), (rows,))
            state.times_ns[name] = state.times_ns.get(name, 0) + _now_ns(value) - started
            sink(name, value, first)
            if observer is not None:
                observer.logits(sublayer, state, hidden, value, first)


def heads_merged(op: Op, value: Tensor) -> Tensor:
    """[B, S, H, D] -> [B, S, H * D] for the linear that follows the heads."""
    return value.flatten(2) if op.kind == "linear" and value.dim() == 4 else value


def _now_ns(value: Tensor) -> int:
    if value.device.type == "cuda":
        torch.cuda.synchronize(value.device)
    return time.perf_counter_ns()
