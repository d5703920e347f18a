"""Owns the emulation of one faulty op on the golden's recorded inputs, as bytes for a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.file import GoldenFile
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer, recorded_path
from goldenctl.reference.faulty import Call
from goldenctl.reference.forward import apply, heads_merged
from goldenctl.reference.sink import bits
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader, from_numpy
from goldenctl.replay.derived import derived_table, is_derived

Compute = Callable[[Call], Tensor | None]


class Emulator:
    """Computes faulty ops in ``dtype`` from what a golden recorded."""

    def __init__(
        self,
        golden: GoldenFile,
        config: ModelConfig,
        checkpoint: Checkpoint,
        dtype: str,
        *,
        through: str | None = None,
    ) -> None:
        """``through`` rounds weights to the recorded type when ``dtype`` is a wider one."""
        self._golden = golden
        self.config = config
        self._dtype = TORCH_DTYPES[dtype]
        self._loader = WeightLoader(checkpoint, dtype, "cpu", through=through)

    def values(self, path: str, sublayer: Sublayer, op: Op, compute: Compute | None = None) -> Any:
        """Return the op's output as NumPy numbers; None when ``compute`` does not fit the op."""
        found = self._computed(path, sublayer, op, compute)
        if found is None:
            return None
        return bits(found).view(ml_dtypes.bfloat16) if _is_bfloat16(found) else bits(found)

    def bits(self, path: str, sublayer: Sublayer, op: Op) -> np.ndarray:
        """Return the op's output as it lies in memory (bfloat16 as 16-bit patterns).

        Raises UsageError when an input of the op was not recorded.
        """
        found = self._computed(path, sublayer, op, None)
        assert found is not None
        return bits(found)

    @torch.inference_mode()
    def _computed(
        self, path: str, sublayer: Sublayer, op: Op, compute: Compute | None
    ) -> Tensor | None:
        names = (*op.inputs, "rope_cos")
        tensors = {name: self._tensor(path, name) for name in names}
        weights = {name: self._loader.load(name) for name in op.weights}
        if op.attrs.get("last_token"):
            tensors["input"] = tensors["input"][:, -1:]
        if compute is None:
            return apply(sublayer, op, tensors, weights)
        inputs = tuple(heads_merged(op, tensors[name]) for name in op.inputs)
        return compute(Call(op.kind, op.attrs, inputs, tuple(weights[n] for n in op.weights)))

    def _tensor(self, path: str, name: str) -> Tensor:
        if is_derived(name):
            positions = self._golden.info("constants/rope_cos").shape[0]
            return torch.from_numpy(derived_table(name, self.config, positions)).to(self._dtype)
        value = from_numpy(self._golden.map(recorded_path(path, name)))
        return value.to(self._dtype) if value.is_floating_point() else value


def _is_bfloat16(value: Tensor) -> bool:
    return value.dtype == torch.bfloat16
