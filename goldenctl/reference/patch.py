"""Owns the emulation of one faulty op on the golden's recorded inputs, as bytes for a plan."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.file import GoldenFile
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer, recorded_path
from goldenctl.reference.forward import apply
from goldenctl.reference.sink import bits
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader, from_numpy
from goldenctl.replay.derived import derived_table, is_derived


class Emulator:
    """Computes faulty ops in ``dtype`` from what a golden recorded."""

    def __init__(
        self, golden: GoldenFile, config: ModelConfig, checkpoint: Checkpoint, dtype: str
    ) -> None:
        self._golden = golden
        self.config = config
        self._dtype = TORCH_DTYPES[dtype]
        self._loader = WeightLoader(checkpoint, dtype, "cpu")

    def values(self, path: str, sublayer: Sublayer, op: Op) -> np.ndarray:
        """Return the op's output as NumPy numbers."""
        found = self.bits(path, sublayer, op)
        return found.view(ml_dtypes.bfloat16) if self._dtype == torch.bfloat16 else found

    @torch.inference_mode()
    def bits(self, path: str, sublayer: Sublayer, op: Op) -> np.ndarray:
        """Return the op's output as it lies in memory (bfloat16 as 16-bit patterns).

        Raises UsageError when an input of the op was not recorded.
        """
        names = (*op.inputs, "rope_cos")
        tensors = {name: self._tensor(path, name) for name in names}
        weights = {name: self._loader.load(name) for name in op.weights}
        if op.attrs.get("last_token"):
            tensors["input"] = tensors["input"][:, -1:]
        return bits(apply(sublayer, op, tensors, weights))

    def _tensor(self, path: str, name: str) -> Tensor:
        if is_derived(name):
            positions = self._golden.info("constants/rope_cos").shape[0]
            return torch.from_numpy(derived_table(name, self.config, positions)).to(self._dtype)
        value = from_numpy(self._golden.map(recorded_path(path, name)))
        return value.to(self._dtype) if value.is_floating_point() else value
