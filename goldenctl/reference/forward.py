"""Owns the reference's forward pass: the graph's ops executed over the cases, one sublayer's
weights at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.schema import sublayer_path
from goldenctl.model.graph import Op, Sublayer
from goldenctl.model.tokens import Case
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


def start(case: Case, constants: dict[str, Tensor], device: str) -> State:
    """Return a case before its embedding; positions count from 0."""
    ids = torch.tensor(case.token_ids, dtype=torch.int32, device=device)  # [B, S]
    positions = torch.arange(ids.shape[1], dtype=torch.int32, device=device).expand(ids.shape)
    return State(case, {**constants, "position_ids": positions.contiguous()}, ids)


@torch.inference_mode()
def run_sublayer(
    sublayer: Sublayer, states: Sequence[State], loader: WeightLoader, sink: Sink
) -> None:
    """Execute one sublayer for every case and hand each tensor it yields to ``sink``.

    Each state's ``hidden`` becomes the sublayer's output (the logits are only handed on).
    """
    run = {"embedding": _run_embedding, "lm_head": _run_lm_head}.get(sublayer.name, _run_ops)
    run(sublayer, states, loader, sink)
    for name in sublayer.weights:
        loader.drop(name)


def _run_ops(sublayer: Sublayer, states: Sequence[State], loader: WeightLoader, sink: Sink) -> None:
    weights = {name: loader.load(name) for name in sublayer.weights}
    for state in states:
        path = sublayer_path(state.case.name, 0, sublayer.name)
        tensors = {**state.constants, "input": state.hidden}
        sink(f"{path}/input", state.hidden, 0)
        for op in sublayer.ops:
            started = _now_ns(state.hidden)
            inputs = tuple(_heads_merged(op, tensors[name]) for name in op.inputs)
            value = KERNELS[op.kind](op.attrs, inputs, tuple(weights[name] for name in op.weights))
            value = _heads_split(sublayer, op, value, tensors["rope_cos"].shape[-1] * 2)
            state.times_ns[f"{path}/{op.output}"] = _now_ns(value) - started
            tensors[op.output] = value
            sink(f"{path}/{op.output}", value, 0)
        state.hidden = tensors["output"]


def _run_embedding(
    sublayer: Sublayer, states: Sequence[State], loader: WeightLoader, sink: Sink
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


def _run_lm_head(
    sublayer: Sublayer, states: Sequence[State], loader: WeightLoader, sink: Sink
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


def _heads_merged(op: Op, value: Tensor) -> Tensor:
    """[B, S, H, D] -> [B, S, H * D] for the linear that follows the heads."""
    return value.flatten(2) if op.kind == "linear" and value.dim() == 4 else value


def _heads_split(sublayer: Sublayer, op: Op, value: Tensor, head_dim: int) -> Tensor:
    """[B, S, H * D] -> [B, S, H, D] for the linears that precede the heads."""
    split = op.kind == "linear" and "head_dim" in sublayer.dims(op.output)
    return value.unflatten(-1, (-1, head_dim)) if split else value


def _now_ns(value: Tensor) -> int:
    if value.device.type == "cuda":
        torch.cuda.synchronize(value.device)
    return time.perf_counter_ns()
