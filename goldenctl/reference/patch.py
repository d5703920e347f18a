"""Emulation of one faulty op on the golden's recorded inputs, as bytes for a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from goldenctl.golden.file import GoldenFile
from goldenctl.golden.operands import operand
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import Op, Sublayer
from goldenctl.reference.faulty import Call
from goldenctl.reference.forward import apply, heads_merged
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader, from_numpy, to_numpy

Compute = Callable[[Call], Tensor | None]


class Emulator:
    """Computes faulty ops in ``dtype`` from what a golden recorded."""

    def __init__(
        self,
        golden: GoldenFile,
        checkpoint: Checkpoint,
        dtype: str,
        *,
        through: str | None = None,
    ) -> None:
        """``through`` rounds weights to the recorded type when ``dtype`` is a wider one."""
        self._golden = golden
        self.config = golden.config
        self._dtype = TORCH_DTYPES[dtype]
        self._loader = WeightLoader(checkpoint, dtype, "cpu", through=through)
        # What was last asked for is asked for again with the next fault: one op's operands
        # and outputs are kept.
        self._at = ("", "")
        self._operands: dict[str, Tensor] = {}
        self._outputs: dict[str, NDArray[Any]] = {}

    def values(
        self, path: str, sublayer: Sublayer, op: Op, compute: Compute | None = None
    ) -> NDArray[Any] | None:
        """Return the op's output; None when ``compute`` does not fit the op.

        Raises UsageError when an input of the op was not recorded.
        """
        found = self.tensor(path, sublayer, op, compute=compute)
        return None if found is None else to_numpy(found)

    def output(self, path: str, sublayer: Sublayer, op: Op) -> NDArray[Any]:
        """Return the op's output by its own, possibly faulty, arithmetic; not to be changed."""
        self._go_to(path, op)
        key = repr(op)
        if key not in self._outputs:
            found = self.values(path, sublayer, op)
            assert found is not None
            self._outputs[key] = found
        return self._outputs[key]

    def _go_to(self, path: str, op: Op) -> None:
        if self._at != (path, op.output):
            self._at = (path, op.output)
            self._operands.clear()
            self._outputs.clear()

    @torch.inference_mode()
    def tensor(
        self,
        path: str,
        sublayer: Sublayer,
        op: Op,
        *,
        compute: Compute | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> Tensor | None:
        """Return the same as a tensor; ``given`` are inputs in place of recorded ones."""
        self._go_to(path, op)
        given = given or {}
        tensors = {n: given[n] if n in given else self._tensor(path, n) for n in op.inputs}
        weights = {name: self._weight(name) for name in op.weights}
        if op.attrs.get("last_token"):
            tensors["input"] = tensors["input"][:, -1:]
        if compute is None:
            return apply(op, tensors, weights)
        inputs = tuple(heads_merged(op, tensors[name]) for name in op.inputs)
        return compute(Call(op.kind, op.attrs, inputs, tuple(weights[n] for n in op.weights)))

    def _weight(self, name: str) -> Tensor:
        if name not in self._operands:
            # The loader reuses its buffers: a fault may ask for the same weight of another layer.
            self._operands[name] = self._loader.load(name).clone()
        return self._operands[name]

    def _tensor(self, path: str, name: str) -> Tensor:
        if name not in self._operands:
            value = from_numpy(operand(self._golden, path, name).array())
            self._operands[name] = value.to(self._dtype) if value.is_floating_point() else value
        return self._operands[name]
