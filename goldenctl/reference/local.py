"""Each op of a traced engine by itself: computed again, wider, from what the engine gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from goldenctl.diff.budget import Budget, check_budget
from goldenctl.diff.pooled import BEHIND_FLOAT16, left_of_bias
from goldenctl.diff.sums import RowErrors
from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.steps import Step, attention_mask, position_ids, visible_tokens
from goldenctl.model import graph
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import CACHE_LINKS, Op, Sublayer, is_table, own_name
from goldenctl.places import sublayer_path
from goldenctl.records.policy import verdict
from goldenctl.records.structure import Local
from goldenctl.reference.forward import VOCAB_SLICE_ROWS, apply
from goldenctl.reference.fused import fused_budget, fused_ops
from goldenctl.reference.kernels import noise_of
from goldenctl.reference.rounding import Unit, squared
from goldenctl.reference.twins import moves_dtype
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader, from_numpy
from goldenctl.trace.canvas import Picture
from goldenctl.trace.run import step_index
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place

_BLOCK_ROWS = VOCAB_SLICE_ROWS
_GIVEN = ("position_ids", "attention_mask")


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
        for sublayer in step.sublayers(self._tracing.golden.config, logits="all"):
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
        rows = picture.written[index].all(-1) & _visible(step, sublayer.dims(op.output))
        if not rows.any():
            return None
        dtype = picture.data.dtype.name
        fused = op.kind == graph.FUSED_OP and self._is_fused(step, sublayer)
        ops = fused_ops(sublayer) if fused else [op]
        inputs = self._inputs(step, sublayer, ops, dtype)
        if inputs is None:
            return None
        actual = from_numpy(np.array(picture.data[index])).to(TORCH_DTYPES[oracle_dtype(dtype)])
        given = (actual, torch.from_numpy(rows), inputs)
        if fused:
            return _judged_fused(sublayer, dtype, given)
        return self._judged(sublayer, op, dtype, given)

    def _is_fused(self, step: Step, sublayer: Sublayer) -> bool:
        probs = Place(step.case.name, sublayer.name, graph.FUSED_TAPS[-1])
        return probs in self._tracing.fused

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
        errors, size = _Sums(rows.shape, may_truncate=dtype == "float16"), actual.shape[-1]
        sliced = sublayer.name == "lm_head"
        for first in range(0, size, _BLOCK_ROWS if sliced else size):
            last = min(first + _BLOCK_ROWS, size) if sliced else size
            weights = {
                name: loader.rows(name, first, last) if sliced else loader.load(name)
                for name in op.weights
            }
            weights = {name: value.clone() for name, value in weights.items()}
            truth = apply(op, inputs, weights)
            unit = Unit.of(dtype)
            squares = {name: squared(unit, value) for name, value in weights.items()}
            noise = noise_of(op, unit, inputs, squares, truth)
            errors.add(actual[..., first:last] - truth, truth, noise.sigma)
        return errors.judged(rows)

    def _inputs(
        self, step: Step, sublayer: Sublayer, ops: Sequence[Op], dtype: str
    ) -> dict[str, Tensor] | None:
        """Return what the engine gave ops that are one, in the wide type; None where a part is
        not there."""
        wide = TORCH_DTYPES[oracle_dtype(dtype)]
        found: dict[str, Tensor] = {}
        made = {op.output for op in ops}
        for op in ops:
            place = Place(step.case.name, sublayer.name, op.output)
            read = [name for name in op.inputs if not _is_given(name)]
            for name in op.inputs:
                if _is_given(name):
                    found[name] = self._given(step, name, dtype)
                elif name not in made:
                    source = self._source(step, sublayer, place, read.index(name), name)
                    value = self._value(step, source, all_tokens=own_name(name) != name)
                    if value is None:
                        return None
                    found[name] = from_numpy(value).to(TORCH_DTYPES[dtype]).to(wide)
        return found

    def _given(self, step: Step, name: str, dtype: str) -> Tensor:
        """Return the model's own positions, mask or table."""
        if name == "position_ids":
            return torch.from_numpy(position_ids(step))
        if name == "attention_mask":
            mask = attention_mask(step)
            assert mask is not None
            return torch.from_numpy(mask)
        table = from_numpy(np.asarray(self._tracing.golden.map(f"constants/{name}")))
        return table.to(TORCH_DTYPES[dtype]).to(TORCH_DTYPES[oracle_dtype(dtype)])

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


def _visible(step: Step, dims: tuple[str, ...]) -> np.ndarray:
    """Return which rows are of tokens that are no padding, as an array that fits all axes but
    the last."""
    token = "token" if "token" in dims else "last_token"
    shown = visible_tokens(step.case)[step_index(step, ("batch", token))]
    sizes = dict(zip(("batch", token), shown.shape, strict=True))
    order = shown if dims.index("batch") < dims.index(token) else shown.T
    return order.reshape([sizes.get(dim, 1) for dim in dims[:-1]])


def _is_given(name: str) -> bool:
    return name in _GIVEN or is_table(name)


def _name(step: Step) -> str:
    return f"{step.case.name}/{step.number:02d}"


def _judged_fused(
    sublayer: Sublayer, dtype: str, given: tuple[Tensor, Tensor, dict[str, Tensor]]
) -> Local | None:
    """Judge a context by the budget of a kernel that computes scores and probs on its own."""
    actual, rows, inputs = given
    kind = TORCH_DTYPES[moves_dtype(dtype)]
    budget = fused_budget(sublayer, Unit.of(dtype), inputs, actual, kind)[0]
    l2, largest, floor_l2, floor_max = (part.double() for part in budget.unbind(-1))
    counted = rows & l2.isfinite()
    if not counted.any():
        return None
    norms = actual.double().pow(2).sum(-1)[counted].numpy()
    errors = RowErrors(1, l2[counted].pow(2).numpy(), largest[counted].numpy(), norms)
    return _local(errors, floor_l2[counted].numpy(), floor_max[counted].numpy())


def _local(errors: RowErrors, floor_l2: np.ndarray, floor_max: np.ndarray) -> Local:
    """Judge rows by what rounding may do to them alone."""
    zeros = np.zeros(len(floor_l2))
    # What one call truncates is not told apart here, as rows of a golden's tensor are.
    budget = Budget(zeros, zeros, floor_l2, floor_max, BEHIND_FLOAT16)
    checks, _ = check_budget(errors, budget, from_truth=True)
    norm = float(np.sqrt(errors.expected_squared.sum()))
    rel_l2 = float(np.sqrt(errors.error_squared.sum())) / norm if norm else 0.0
    return Local(share=verdict(checks).share, rel_l2=rel_l2)


class _Sums:
    """Errors of rows and their budget, added up over blocks of columns.

    Where an engine ``may_truncate``, as InfiniCore 0.1.0 does in float16, what all elements of a
    tensor err by together is left out of what rows may err by.
    """

    def __init__(self, shape: Sequence[int], *, may_truncate: bool) -> None:
        self._may_truncate = may_truncate
        self._shape = tuple(shape)
        self._squares = {key: torch.zeros(self._shape, dtype=torch.float64) for key in _ADDED}
        self._largest = {key: torch.zeros(self._shape, dtype=torch.float64) for key in _LARGEST}
        self._bias = torch.zeros((3, *self._shape), dtype=torch.float64)

    def add(self, error: Tensor, truth: Tensor, sigma: Tensor) -> None:
        values = {"error": error, "expected": truth, "floor": sigma}
        for key in _ADDED:
            self._squares[key] += values[key].double().pow(2).sum(-1)
        if self._may_truncate:
            self._add_bias(error.double(), truth.double())
        for key in _LARGEST:
            self._largest[key] = self._largest[key].maximum(values[key].abs().amax(-1).double())

    def _add_bias(self, error: Tensor, truth: Tensor) -> None:
        exponent = truth.frexp().exponent - 1
        unit = torch.where(truth == 0, 0.0, torch.exp2(exponent.double()))
        sums = (error * truth.sign(), unit, unit.pow(2))
        self._bias += torch.stack([each.sum(-1) for each in sums])

    def judged(self, rows: Tensor) -> Local | None:
        """Judge the rows that are there and whose inputs were; None where there is none."""
        counted = rows & self._squares["expected"].isfinite()
        if not counted.any():
            return None
        squares = {k: v[counted].numpy() for k, v in self._squares.items()}
        largest = {k: v[counted].numpy() for k, v in self._largest.items()}
        errors = RowErrors(1, squares["error"], largest["error"], squares["expected"])
        if self._may_truncate:
            away, units, squared = (sums[counted].numpy() for sums in self._bias)
            given = replace(errors, signed_error=away, units=units, units_squared=squared)
            errors = replace(errors, error_squared=left_of_bias(given))
        return _local(errors, np.sqrt(squares["floor"]), _SIGMAS * largest["floor"])


_ADDED = ("error", "expected", "floor")
_LARGEST = ("error", "floor")
_SIGMAS = 3.0
