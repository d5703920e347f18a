"""The plan: a graph's ops bound to bytes, as frozen records (docs/plan-protocol.md).

A plan is built from the graph, a golden, a checkpoint's offsets and a run file's offsets.
It knows nothing of any engine.
"""

from __future__ import annotations

import math
import os
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

PROTOCOL = 1
# What stays as it is in a plan's strings; letters and digits always do.
_PLAIN = "".join(set(string.punctuation + " ") - set('"\\%'))


class File(msgspec.Struct, frozen=True):
    """A file that tensors are loaded from or stored to; ``bytes`` is its exact size."""

    path: str
    bytes: int
    write: bool


class Load(msgspec.Struct, frozen=True):
    """Bytes of ``dtype`` at ``offset`` of file number ``file``."""

    file: int
    offset: int
    dtype: str


class Part(msgspec.Struct, frozen=True):
    """Bytes of ``dtype`` at ``offset`` of file number ``file`` that become ``count`` elements of
    a tensor, from element ``first`` on."""

    file: int
    offset: int
    dtype: str
    first: int
    count: int


class Store(msgspec.Struct, frozen=True):
    """Where a tensor's bytes go."""

    file: int
    offset: int


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A contiguous device buffer that lives for one sublayer.

    ``load`` fills all of it, ``parts`` pieces of it: the keys of earlier steps.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Load | None = None
    store: Store | None = None
    parts: tuple[Part, ...] = ()


class View(msgspec.Struct, frozen=True):
    """Elements of tensor number ``tensor``; offset and strides count elements."""

    tensor: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def reshape(self, *shape: int) -> View:
        """Return a view of another shape; the view must be contiguous."""
        assert self.strides == contiguous(self.shape)
        return View(self.tensor, self.offset, shape, contiguous(shape))

    def permute(self, *axes: int) -> View:
        """Return the view with its axes in another order."""
        return View(
            self.tensor,
            self.offset,
            tuple(self.shape[axis] for axis in axes),
            tuple(self.strides[axis] for axis in axes),
        )

    def expand(self, axis: int, size: int) -> View:
        """Return the view with a new axis of ``size`` that repeats it (stride 0)."""
        shape = (*self.shape[:axis], size, *self.shape[axis:])
        strides = (*self.strides[:axis], 0, *self.strides[axis:])
        return View(self.tensor, self.offset, shape, strides)

    def take(self, axis: int, index: int) -> View:
        """Return the view at one index of an axis, without that axis."""
        return View(
            self.tensor,
            self.offset + index * self.strides[axis],
            (*self.shape[:axis], *self.shape[axis + 1 :]),
            (*self.strides[:axis], *self.strides[axis + 1 :]),
        )

    def head(self, axis: int, size: int) -> View:
        """Return the view of the first ``size`` indices of an axis."""
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return View(self.tensor, self.offset, shape, self.strides)

    def tail(self, axis: int, size: int) -> View:
        """Return the view of the last ``size`` indices of an axis."""
        before = self.shape[axis] - size
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return View(self.tensor, self.offset + before * self.strides[axis], shape, self.strides)

    def split(self, axis: int, outer: int) -> View:
        """Return the view with an axis split into ``outer`` and the rest."""
        inner = self.shape[axis] // outer
        shape = (*self.shape[:axis], outer, inner, *self.shape[axis + 1 :])
        stride = self.strides[axis]
        strides = (*self.strides[:axis], stride * inner, stride, *self.strides[axis + 1 :])
        return View(self.tensor, self.offset, shape, strides)


class PlanOp(msgspec.Struct, frozen=True, omit_defaults=True):
    """One launch: ``op`` over the views ``args`` writes the view ``out``."""

    op: str
    tap: str
    out: View
    args: tuple[View, ...]
    epsilon: float | None = None
    alpha: float | None = None
    beta: float | None = None
    algo: str | None = None
    choices: int | None = None
    renormalise: int | None = None


class PlanSublayer(msgspec.Struct, frozen=True):
    """One sublayer: its buffers and the launches over them, in order."""

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[PlanOp, ...]


class Plan(msgspec.Struct, frozen=True):
    """Everything a backend is told."""

    device: str
    device_id: int
    dtype: str
    files: tuple[File, ...]
    sublayers: tuple[PlanSublayer, ...]
    repeat: int = 1
    stop_on_failure: bool = False
    protocol: int = PROTOCOL


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return row-major strides in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON; its strings are printable ASCII, with %XX for any other byte."""
    path.write_bytes(msgspec.json.encode(_with_strings(plan, encode_string)))


def read_plan(path: Path) -> Plan:
    """Read a plan; raises msgspec.ValidationError when it is not one."""
    return _with_strings(msgspec.json.decode(path.read_bytes(), type=Plan), decode_string)


def encode_string(text: str) -> str:
    """Return a path or name as a plan writes it, whatever its bytes are."""
    return quote(os.fsencode(text), safe=_PLAIN)


def decode_string(text: str) -> str:
    """Undo ``encode_string``."""
    return os.fsdecode(unquote_to_bytes(text))


def _with_strings(plan: Plan, convert: Callable[[str], str]) -> Plan:
    """Convert the paths, and the names that come out of files; others are the tool's own."""
    replace = msgspec.structs.replace
    sublayers = (
        PlanSublayer(
            convert(s.name),
            tuple(replace(tensor, name=convert(tensor.name)) for tensor in s.tensors),
            s.ops,
        )
        for s in plan.sublayers
    )
    files = (replace(file, path=convert(file.path)) for file in plan.files)
    return replace(plan, files=tuple(files), sublayers=tuple(sublayers))


class SublayerBuilder:
    """Collects the buffers of one sublayer and hands out whole views of them."""

    def __init__(self, name: str, dtype: str) -> None:
        self.name = name
        self.dtype = dtype
        self.ops: list[PlanOp] = []
        self._tensors: list[Tensor] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        *,
        dtype: str | None = None,
        load: Load | None = None,
        store: Store | None = None,
        parts: tuple[Part, ...] = (),
    ) -> View:
        """Add a buffer (of the plan's dtype unless said otherwise); return all of it."""
        tensor = Tensor(name, dtype or self.dtype, tuple(shape), load, store, parts)
        self._tensors.append(tensor)
        return View(len(self._tensors) - 1, 0, tensor.shape, contiguous(tensor.shape))

    def build(self) -> PlanSublayer:
        """Return the sublayer; what an op reads or a tensor stores must have been written."""
        written = {number for number, t in enumerate(self._tensors) if t.load or t.parts}
        for op in self.ops:
            assert {view.tensor for view in op.args} <= written, f"{self.name}: {op.tap} is early"
            assert not op.beta or op.out.tensor in written, f"{self.name}: {op.tap} adds to nothing"
            written.add(op.out.tensor)
        stored = {number for number, tensor in enumerate(self._tensors) if tensor.store}
        assert stored <= written, f"{self.name}: a tensor is stored and never written"
        return PlanSublayer(self.name, tuple(self._tensors), tuple(self.ops))


# A lowering turns one graph op into launches: (tap, out, inputs, weights, attrs) -> ops.
Lowering = Callable[
    [str, View, tuple[View, ...], tuple[View, ...], Mapping[str, Any]], list[PlanOp]
]
