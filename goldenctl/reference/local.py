"""Each op of a traced engine by itself: computed again, wider, from what the engine gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from goldenctl.diff._partial import RowErrors
from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.structure import Local
from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.schema import sublayer_path
from goldenctl.golden.steps import Step, attention_mask, position_ids
from goldenctl.model import graph
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import CACHE_LINKS, CONSTANTS, Op, Sublayer, own_name
from goldenctl.reference.forward import VOCAB_SLICE_ROWS, apply
from goldenctl.reference.noise import Unit, noise_of
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader, from_numpy
from goldenctl.trace.canvas import Picture
from goldenctl.trace.run import step_index
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place

_BLOCK_ROWS = VOCAB_SLICE_ROWS


@torch.inference_mode()
def judge_locally(
    tracing: Tracing, checkpoint: Checkpoint, steps: Sequence[str]
) -> dict[str, Local]:
    """Return the judgement of every op whose inputs and output are in the trace, by tensor.

    The op is the model's, with its own weights, scalars, positions and tables; what an engine
    computes with others is wrong by itself.
    """
    judge = _Judge(tracing, checkpoint)
    found: dict[str, Local] = {}
    for tokens in tracing.cases.values():
        for step in tokens.steps:
            if step.path in steps:
                found |= judge.step(step)
    return found


class _Judge:
    """Judges the ops of one trace, a sublayer of a step at a time."""

    def __init__(self, tracing: Tracing, checkpoint: Checkpoint) -> None:
        self._tracing = tracing
        self._checkpoint = checkpoint
        self._pictures = tracing.canvas.pictures

    def step(self, step: Step) -> Iterator[tuple[str, Local]]:
        past, masked = step.start > 0, attention_mask(step) is not None
        config = self._tracing.golden.config
        for sublayer in graph.decoder(config, logits="all", past=past, masked=masked):
            taps = {Place(step.case.name, sublayer.name, t) for t in sublayer.taps}
            if taps & self._tracing.fused:
                sublayer = graph.with_fused_attention(sublayer)
            for op in sublayer.ops:
                judged = self._op(step, sublayer, op)
                if judged is not None:
                    yield from self._names(step, sublayer, op, judged)

    def _names(
        self, step: Step, sublayer: Sublayer, op: Op, judged: Local
    ) -> Iterator[tuple[str, Local]]:
        path = sublayer_path(step.case.name, step.number, sublayer.name)
        links = [link for link, tap in CACHE_LINKS.items() if tap == op.output]
        for tap in (op.output, *links):
            if f"{path}/{tap}" in self._tracing.golden.tensors:
                yield f"{path}/{tap}", judged

    def _op(self, step: Step, sublayer: Sublayer, op: Op) -> Local | None:
        place = Place(step.case.name, sublayer.name, op.output)
        picture = self._pictures.get(place)
        if picture is None or (place, _name(step)) in self._tracing.unjudged:
            return None
        if op.kind == "embedding":
            return Local(share=0.0, rel_l2=0.0)  # it was found by its bytes
        index = step_index(step, sublayer.dims(op.output))
        rows = picture.written[index].all(-1)
        if not rows.any():
            return None
        dtype = picture.data.dtype.name
        inputs = self._inputs(step, sublayer, op, dtype)
        if inputs is None:
            return None
        actual = from_numpy(np.array(picture.data[index])).to(TORCH_DTYPES[oracle_dtype(dtype)])
        return self._judged(sublayer, op, dtype, (actual, torch.from_numpy(rows), inputs))

    def _judged(
        self,
        sublayer: Sublayer,
        op: Op,
        dtype: str,
        given: tuple[Tensor, Tensor, dict[str, Tensor]],
    ) -> Local | None:
        """Compare an output [..., n] with the truth, by its rows; wide layers in blocks."""
        actual, rows, inputs = given
        wide = oracle_dtype(dtype)
        loader = WeightLoader(self._checkpoint, wide, "cpu", through=dtype)
        errors, size = _Sums(rows.shape), actual.shape[-1]
        sliced = sublayer.name == "lm_head"
        for first in range(0, size, _BLOCK_ROWS if sliced else size):
            last = min(first + _BLOCK_ROWS, size) if sliced else size
            weights = {
                name: loader.rows(name, first, last) if sliced else loader.load(name)
                for name in op.weights
            }
            weights = {name: value.clone() for name, value in weights.items()}
            truth = apply(sublayer, op, inputs, weights)
            noise = noise_of(op, Unit.of(dtype), inputs, weights, truth)
            errors.add(actual[..., first:last] - truth, truth, noise.sigma)
        return errors.judged(rows)

    def _inputs(
        self, step: Step, sublayer: Sublayer, op: Op, dtype: str
    ) -> dict[str, Tensor] | None:
        """Return what the engine gave an op, in the wide type; None where a part is not there."""
        wide = TORCH_DTYPES[oracle_dtype(dtype)]
        found: dict[str, Tensor] = {}
        node = self._tracing.flows[step.case.name].nodes[
            Place(step.case.name, sublayer.name, op.output)
        ]
        read = [name for name in op.inputs if name not in _given_by_case()]
        for name in (*op.inputs, *CONSTANTS):
            if name == "position_ids":
                found[name] = torch.from_numpy(position_ids(step))
            elif name == "attention_mask":
                mask = attention_mask(step)
                assert mask is not None
                found[name] = torch.from_numpy(mask)
            elif name in CONSTANTS:
                table = from_numpy(np.asarray(self._tracing.golden.map(f"constants/{name}")))
                found[name] = table.to(TORCH_DTYPES[dtype]).to(wide)
            else:
                place = self._source(step, sublayer, node.place, read.index(name), name)
                value = self._value(step, place, all_tokens=own_name(name) != name)
                if value is None:
                    return None
                found[name] = from_numpy(value).to(TORCH_DTYPES[dtype]).to(wide)
        return found

    def _source(self, step: Step, sublayer: Sublayer, place: Place, index: int, name: str) -> Place:
        """Return the place of what an op read: the graph's, or another one that was found."""
        flow = self._tracing.flows[step.case.name]
        own = Place(step.case.name, sublayer.name, own_name(name))
        expected = own if own in flow.nodes else flow.nodes[place].inputs[index]
        other = self._tracing.reads.get((place, index, _name(step)))
        if other is None or other.is_weight or other not in self._pictures:
            return expected
        mine = self._pictures.get(expected)
        same = mine is None or mine.data.shape == self._pictures[other].data.shape
        return other if same and other != place else expected

    def _value(self, step: Step, place: Place, *, all_tokens: bool) -> np.ndarray | None:
        picture: Picture | None = self._pictures.get(place)
        if picture is None:
            return None
        node = self._tracing.flows[step.case.name].nodes[place]
        span = replace(step, start=0) if all_tokens else step
        index = step_index(span, node.dims)
        return np.where(picture.written[index], picture.data[index], np.nan).astype(
            picture.data.dtype
        )


def _name(step: Step) -> str:
    return f"{step.case.name}/{step.number:02d}"


def _given_by_case() -> tuple[str, ...]:
    return ("position_ids", "attention_mask", *CONSTANTS)


class _Sums:
    """Errors of rows and their budget, added up over blocks of columns."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._squares = {key: torch.zeros(self._shape, dtype=torch.float64) for key in _ADDED}
        self._largest = {key: torch.zeros(self._shape, dtype=torch.float64) for key in _LARGEST}

    def add(self, error: Tensor, truth: Tensor, sigma: Tensor) -> None:
        values = {"error": error, "expected": truth, "floor": sigma}
        for key in _ADDED:
            self._squares[key] += values[key].double().pow(2).sum(-1)
        for key in _LARGEST:
            self._largest[key] = self._largest[key].maximum(values[key].abs().amax(-1).double())

    def judged(self, rows: Tensor) -> Local | None:
        """Judge the rows that are there and whose inputs were; None where there is none."""
        counted = rows & self._squares["expected"].isfinite()
        if not counted.any():
            return None
        squares = {k: v[counted].numpy() for k, v in self._squares.items()}
        largest = {k: v[counted].numpy() for k, v in self._largest.items()}
        zeros = np.zeros(len(squares["error"]))
        budget = Budget(zeros, zeros, np.sqrt(squares["floor"]), _SIGMAS * largest["floor"])
        errors = RowErrors(1, squares["error"], largest["error"], squares["expected"])
        checks, _ = check_budget(errors, budget, from_truth=True)
        norm = float(np.sqrt(squares["expected"].sum()))
        rel_l2 = float(np.sqrt(squares["error"].sum())) / norm if norm else 0.0
        return Local(share=max(check.share for check in checks), rel_l2=rel_l2)


_ADDED = ("error", "expected", "floor")
_LARGEST = ("error", "floor")
_SIGMAS = 3.0
