"""Test cases for InfiniCore's own infiniop-test: one op of a golden, alone.

The case is what the harness launches for the op: the same shapes and strides, the golden's
inputs, the checkpoint's weights, and the golden's output as the expected answer. The file
format is InfiniCore's (test/infiniop-test there): keys ``test.N.op_name``, attributes,
``.shape`` in NumPy's order and ``.strides`` reversed; a tensor's data lies contiguous in the file
and is laid out by its strides when it is read. An output holds no data, only a shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.diff.budget import Budget, row_limits
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy, limits_for
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.exchange.gguf import UInt64, Value
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.operands import added_mask, operand
from goldenctl.golden.schema import BUDGET_SCOPES, TensorInfo
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import WINDOW, Op, Sublayer, plan_inputs
from goldenctl.ops.plan import PlanOp, View, contiguous
from goldenctl.ops.table import LAUNCHES, OPS
from goldenctl.places import short_name
from goldenctl.replay.bind import choose_sublayers

_ROPE_ALGORITHMS = {"gpt_j": 0, "neox": 1}
Array = NDArray[Any]


@dataclass
class Case:
    """A file's content, what it is in words, and the tolerance of the golden for its answers."""

    summary: str
    atol: float
    metadata: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)


def find_case(
    source: GoldenFile,
    tensor: str | None,
    *,
    golden_path: Path | None = None,
    model_path: Path | None = None,
) -> Case:
    """Return the case of the op that yields ``tensor``, an ending of one name or all of it.

    Without a name it is the first that is wrong in a run. Raises UsageError when there is no
    such op or infiniop-test has none of its kind, MissingError when the run's golden or the
    checkpoint is not there, DamagedError when either is another one.
    """
    golden = _golden_of(source, golden_path)
    info = _find(golden, tensor if tensor is not None else _first_wrong(golden, source))
    folder = info.place.group
    config = golden.config
    sublayer = choose_sublayers(golden, config, None, fused=False)[folder]
    dtype = source.recipe.get("dtype", info.dtype)
    bound = _Bound(golden, _checkpoint(golden, model_path), folder, dtype)
    return _case(bound, sublayer, sublayer.producer(info.tap), info)


def _golden_of(source: GoldenFile, path: Path | None) -> GoldenFile:
    if source.kind == "golden":
        return source
    recorded = source.recipe.get("golden", {})
    place = path or Path(str(recorded.get("path", "")))
    if not place.is_file():
        message = f"{source.path}: its golden {place} is not there"
        raise MissingError(message, hint="pass --golden")
    golden = open_golden(place, kind="golden")
    if golden.content_digest != recorded.get("content_digest"):
        message = f"{place}: is not the golden that {source.path} was replayed from"
        raise DamagedError(message, hint="pass --golden")
    return golden


def _first_wrong(golden: GoldenFile, source: GoldenFile) -> str:
    if source.kind == "golden":
        message = f"{source.path}: name the op of a golden with --op TENSOR"
        raise UsageError(message, hint="such as layers/03/attention/q_rope; inspect lists them")
    wrong = compare(golden, source, default_policy()).first_wrong
    if wrong is None:
        message = f"{source.path}: nothing is wrong in it"
        raise UsageError(message, hint="name an op with --op TENSOR")
    return wrong.name


def _find(golden: GoldenFile, text: str) -> TensorInfo:
    """Return the one tensor that an op yields whose name ends in ``text``, dots or slashes."""
    wanted = text.replace(".", "/") if "/" not in text else text
    names = {**{name: name for name in golden.tensors}, **golden.aliases}
    exact = names.get(text)
    found = {t for n, t in names.items() if f"/{n}".endswith(f"/{wanted}")}
    found = {t for t in found if golden.tensors[t].role in ("tap", "output")}
    targets = [exact] if exact is not None else sorted(found)
    if len(targets) != 1:
        what = "is yielded by no op" if not targets else f"is ambiguous: {', '.join(targets[:3])}"
        message = f"{golden.path}: --op {text} {what}"
        raise UsageError(message, hint="inspect lists the tensors")
    info = golden.tensors[targets[0]]
    if info.role not in ("tap", "output"):
        message = f"{golden.path}: {info.name} is {info.role}, no op yields it"
        raise UsageError(message, hint="inspect lists the tensors")
    return info


def _checkpoint(golden: GoldenFile, model_path: Path | None) -> Checkpoint:
    checkpoint = Checkpoint.open(model_path or Path(golden.recipe["model"]["path"]))
    if checkpoint.fingerprint() != golden.recipe["model"]["fingerprint"]:
        message = f"{checkpoint.folder}: not the checkpoint that {golden.path} was recorded from"
        raise DamagedError(message, hint="pass the recorded one with --model-path")
    return checkpoint


class _Bound:
    """The arrays of one op, in the order in which views of them count."""

    def __init__(self, golden: GoldenFile, checkpoint: Checkpoint, folder: str, dtype: str) -> None:
        self.golden = golden
        self.folder = folder
        self.dtype = dtype
        self._checkpoint = checkpoint
        self._arrays: list[Array] = []

    def activation(self, name: str) -> View:
        """Add what the golden holds of an input; UsageError when it was not recorded."""
        array = operand(self.golden, self.folder, name).array()
        hides = name == "attention_mask" or name.startswith(WINDOW)
        return self._add(added_mask(array, self.dtype) if hides else array)

    def weight(self, name: str) -> View:
        return self._add(self._checkpoint.map(name))

    def output(self, shape: tuple[int, ...]) -> View:
        """Add the expected answer, in float64."""
        self._arrays.append(np.zeros(shape))
        return View(len(self._arrays) - 1, 0, shape, contiguous(shape))

    def array(self, view: View) -> Array:
        """Return what a view shows."""
        base = self._arrays[view.tensor].reshape(-1)
        strides = tuple(stride * base.itemsize for stride in view.strides)
        return np.lib.stride_tricks.as_strided(base[view.offset :], view.shape, strides)

    def fill(self, view: View, values: Array) -> None:
        self._arrays[view.tensor] = np.ascontiguousarray(values, np.float64)

    def _add(self, array: Array) -> View:
        if array.dtype.kind not in "iu":
            array = np.ascontiguousarray(array).astype(DTYPES[self.dtype].numpy)
        self._arrays.append(np.ascontiguousarray(array))
        return View(len(self._arrays) - 1, 0, array.shape, contiguous(array.shape))


def _case(bound: _Bound, sublayer: Sublayer, op: Op, info: TensorInfo) -> Case:
    inputs = tuple(bound.activation(name) for name in plan_inputs(op))
    weights = tuple(bound.weight(name) for name in op.weights)
    out = bound.output(info.shape)
    launches = OPS[op.kind].lower(op.output, out, inputs, weights, op.attrs)
    launch = launches[-1]
    if LAUNCHES[launch.op].test is None:
        message = f"{info.name}: infiniop-test has no test of {op.kind}"
        tested = ", ".join(name for name, each in LAUNCHES.items() if each.test)
        raise UsageError(message, hint=f"it has {tested}")
    truth = f"{bound.folder}/oracle/{info.tap}"
    kept = truth in bound.golden.tensors
    answer = bound.golden.verify(truth)[0] if kept else bound.golden.verify(info.name)
    bound.fill(out, answer)
    before = _before(bound, launches[:-1]) if len(launches) > 1 else None
    if before is not None and launch.op == "causal_softmax":
        masks = [bound.array(add.args[1]) != 0 for add in launches[:-1]]
        _replace_padding(before, bound.array(out), np.logical_or.reduce(masks))
    case = Case("", _atol(bound.golden, info, bound.dtype, kept))
    parts = list(_parts(launch))
    for number, part in enumerate(parts):
        _add_test(case, bound, part, number, before)
    case.metadata |= _keys(bound, info, len(parts), case.atol)
    where = f"{short_name(bound.folder)}.{info.tap}"
    tests = "1 test" if len(parts) == 1 else f"{len(parts)} tests"
    case.summary = f"{tests} of {launch.op} for {where} in {bound.dtype}"
    return case


def _before(bound: _Bound, launches: Sequence[PlanOp]) -> Array:
    """Return what launches before the op put into its output: a bias for every row, or scores
    with keys hidden."""
    views = [*launches[0].args, *(add.args[1] for add in launches[1:])]
    arrays = [np.asarray(bound.array(view), np.float64) for view in views]
    total: Array = np.sum(arrays, axis=0)
    return total.astype(DTYPES[bound.dtype].numpy)


def _replace_padding(scores: Array, answer: Array, hidden: Array) -> None:
    """Give rows of padding tokens, where nothing is defined, scores of 0 and their softmax.

    All are [B, H, S, T]; ``hidden`` marks keys that are padding.
    """
    token, key_token = scores.shape[2:]
    seen = np.tri(token, key_token, key_token - token, dtype=bool)
    empty = ~(seen & ~hidden).any(axis=-1)
    scores[empty] = 0
    uniform = np.broadcast_to(seen / seen.sum(axis=-1, keepdims=True), answer.shape)
    answer[empty] = uniform[empty]


def _keys(bound: _Bound, info: TensorInfo, count: int, atol: float) -> dict[str, Value]:
    return {
        "general.architecture": "infiniop-test",
        "test_count": UInt64(count),
        "goldenctl.tensor": info.name,
        "goldenctl.golden_content_digest": bound.golden.content_digest,
        "goldenctl.atol": atol,
    }


def _parts(launch: PlanOp) -> Iterator[PlanOp]:
    """Take a gemm of more than three axes apart: the engine has one batch axis."""
    if launch.op != "gemm" or len(launch.out.shape) <= 3:
        yield launch
        return
    for index in range(launch.out.shape[0]):
        yield from _parts(
            PlanOp(
                launch.op,
                launch.tap,
                launch.out.take(0, index),
                tuple(view.take(0, index) for view in launch.args),
                alpha=launch.alpha,
                beta=launch.beta,
            )
        )


def _add_test(case: Case, bound: _Bound, launch: PlanOp, number: int, before: Array | None) -> None:
    """Add one launch; ``before`` is what its output holds already."""
    test = LAUNCHES[launch.op].test
    assert test is not None
    arguments, output = test
    prefix = f"test.{number}"
    case.metadata[f"{prefix}.op_name"] = launch.op
    for key in ("epsilon", "alpha", "beta"):
        value = getattr(launch, key)
        if value is not None:
            case.metadata[f"{prefix}.{key}"] = float(value)
    if launch.algo is not None:
        case.metadata[f"{prefix}.algo"] = _ROPE_ALGORITHMS[launch.algo]
    for argument, view in zip(arguments, launch.args, strict=True):
        held = before if view == launch.out else None  # it works in place
        array = bound.array(view) if held is None else held.reshape(view.shape)
        _add_input(case, f"{prefix}.{argument}", array, view.strides)
    dtype = DTYPES[bound.dtype].numpy
    if launch.op == "gemm":  # its output is an input too: c = alpha a b + beta c
        c = np.zeros(launch.out.shape, dtype) if before is None else before
        _add_input(case, f"{prefix}.{output}", c, launch.out.strides)
    else:
        empty = np.empty((0,) * len(launch.out.shape), dtype)
        _add_input(case, f"{prefix}.{output}", empty, launch.out.strides)
        case.metadata[f"{prefix}.{output}.shape"] = list(launch.out.shape)
    case.tensors[f"{prefix}.ans"] = np.ascontiguousarray(bound.array(launch.out))


def _add_input(case: Case, key: str, array: Array, strides: tuple[int, ...]) -> None:
    """Add a tensor; along an axis of stride 0 only one slice is stored."""
    if 0 in strides and array.size:
        case.metadata[f"{key}.shape"] = list(array.shape)
        array = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in strides)]
    case.metadata[f"{key}.strides"] = list(strides[::-1])
    case.tensors[key] = np.ascontiguousarray(array)


def _atol(golden: GoldenFile, info: TensorInfo, dtype: str, kept: bool) -> float:
    """Return the largest error of an element that the golden's own tolerance lets pass."""
    expected = np.asarray(golden.verify(info.name), np.float64)
    folder, tap = info.place.group, info.tap
    stored = f"{folder}/budget/{tap}"
    if stored in golden.tensors and dtype == info.dtype:
        budget = Budget.of(golden.verify(stored), BUDGET_SCOPES.index("op"))
        norms = np.sqrt((expected.reshape(-1, expected.shape[-1]) ** 2).sum(axis=-1))
        return float(row_limits(budget, norms, from_truth=kept)[1].max())
    limits = limits_for(default_policy(), info.op, (info.dtype, dtype), "op")
    peak = limits.peak if limits.peak is not None else 0.0
    finite = np.abs(expected[np.isfinite(expected)])
    return peak * float(finite.max()) if finite.size else math.inf
