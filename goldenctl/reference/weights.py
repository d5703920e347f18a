"""Weights, from mapped checkpoint bytes to tensors, one sublayer at a time."""

from __future__ import annotations

import re
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldenctl.model.checkpoint import Checkpoint

TORCH_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
}


class WeightLoader:
    """Gives a sublayer's weights in the compute dtype and lets go of the mapped pages.

    Converted weights live in one buffer per role ("self_attn.q_proj.weight"), reused from
    layer to layer: fresh memory costs more than the conversion. A tensor is therefore
    valid until the same role of another layer is asked for.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: str, device: str, *, through: str | None = None
    ) -> None:
        """``through`` rounds every weight to a narrower type on the way to ``dtype``."""
        self._checkpoint = checkpoint
        self._dtype = TORCH_DTYPES[dtype]
        self._through = TORCH_DTYPES[through or dtype]
        self._device = torch.device(device)
        self._buffers: dict[str, Tensor] = {}

    def load(self, name: str) -> Tensor:
        """Return one whole parameter as ``[*shape]`` in the compute dtype, on the device."""
        return self._convert(re.sub(r"layers\.\d+\.", "layers.", name), self._mapped(name))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of a matrix; valid until the next call."""
        return self._convert(f"{name}[rows]", self._mapped(name)[start:stop])

    def row_count(self, name: str) -> int:
        """Return the first dimension of a parameter."""
        return self._checkpoint.tensor(name).shape[0]

    def gather(self, name: str, ids: np.ndarray) -> Tensor:
        """Return ``[len(ids), M]``: only these rows of a table are read."""
        table = self._checkpoint.map(name)
        rows = from_numpy(np.ascontiguousarray(table[ids]))
        return rows.to(self._device, self._dtype)

    def drop(self, name: str) -> None:
        """Let the kernel reclaim the mapped pages of a parameter."""
        self._checkpoint.drop(name)

    def _mapped(self, name: str) -> Tensor:
        return from_numpy(self._checkpoint.map(name))

    def _convert(self, role: str, source: Tensor) -> Tensor:
        if source.dtype == self._dtype and self._device.type == "cpu":
            return source
        buffer = self._buffers.get(role)
        if buffer is None or buffer.shape[0] < source.shape[0]:
            buffer = torch.empty(source.shape, dtype=self._dtype, device=self._device)
            self._buffers[role] = buffer
        narrow = self._through.itemsize < source.dtype.itemsize
        return buffer[: source.shape[0]].copy_(source.to(self._through) if narrow else source)


def from_numpy(array: np.ndarray) -> Tensor:
    """Wrap a mapped array without a copy; the tensor must only be read."""
    is_bfloat16 = array.dtype.name == "bfloat16"
    bits = array.view(np.uint16) if is_bfloat16 else array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(bits)
    return tensor.view(torch.bfloat16) if is_bfloat16 else tensor


def to_numpy(value: Tensor) -> NDArray[Any]:
    """Return a tensor's values; bfloat16 comes as ``ml_dtypes.bfloat16``."""
    value = value.detach().contiguous()
    if value.dtype == torch.bfloat16:
        return np.asarray(value.view(torch.uint16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(value.numpy())
