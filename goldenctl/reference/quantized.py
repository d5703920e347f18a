"""Linear layers in few bits: what an engine computes that rounds weights, activations or both to
int8, float8 or int4, each as a change of the operands of the op's own kernel.

Every scheme is the plain one: scales from the largest magnitude, values rounded to nearest even.
Activations are quantised as they come, each token by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Quantise = Callable[[Tensor], Tensor]
_FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Scheme:
    """What is done to the weights [N, K] and to the activations [..., K]; None leaves them."""

    weight: Quantise | None = None
    activation: Quantise | None = None

    def operands(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return both operands as the engine would see them, in their own types."""
        return _through(self.activation, x), _through(self.weight, weight)


def _through(quantise: Quantise | None, x: Tensor) -> Tensor:
    """Quantise in float32 at least; the result is rounded to the operand's type."""
    if quantise is None:
        return x
    wide = x if x.dtype == torch.float64 else x.float()
    return quantise(wide).to(x.dtype)


def _integers(bits: int, x: Tensor, largest: Tensor) -> Tensor:
    """Symmetric integers of ``bits``: the scale takes ``largest`` to 127, or to 7."""
    top = 2 ** (bits - 1) - 1
    scale = (largest / top).clamp_min(torch.finfo(x.dtype).tiny)
    rounded: Tensor = (x / scale).round().clamp(-top - 1, top) * scale
    return rounded


def _float8(x: Tensor, largest: Tensor) -> Tensor:
    scale = (largest / torch.finfo(_FLOAT8).max).clamp_min(torch.finfo(x.dtype).tiny)
    return (x / scale).float().to(_FLOAT8).to(x.dtype) * scale


def _int8_with_zero_point(x: Tensor) -> Tensor:
    """Unsigned integers between each row's smallest and largest value."""
    low = x.amin(-1, keepdim=True).clamp_max(0.0)
    high = x.amax(-1, keepdim=True).clamp_min(0.0)
    scale = ((high - low) / 255).clamp_min(torch.finfo(x.dtype).tiny)
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, 255) - zero) * scale


def _per_row(quantise: Callable[[Tensor, Tensor], Tensor]) -> Quantise:
    return lambda x: quantise(x, x.abs().amax(-1, keepdim=True))


def _per_tensor(quantise: Callable[[Tensor, Tensor], Tensor]) -> Quantise:
    return lambda x: quantise(x, x.abs().amax())


def _per_group(size: int, quantise: Callable[[Tensor, Tensor], Tensor]) -> Quantise:
    return lambda x: _per_row(quantise)(torch.unflatten(x, -1, (-1, size))).flatten(-2)


_int8 = partial(_integers, 8)
_int4 = partial(_integers, 4)

SCHEMES: dict[str, Scheme] = {
    "w_int8_channel": Scheme(weight=_per_row(_int8)),
    "w_int8_zero_point": Scheme(weight=_int8_with_zero_point),
    "w_int8_tensor": Scheme(weight=_per_tensor(_int8)),
    "w_fp8_channel": Scheme(weight=_per_row(_float8)),
    "w_fp8_tensor": Scheme(weight=_per_tensor(_float8)),
    "w_int4_group_32": Scheme(weight=_per_group(32, _int4)),
    "w_int4_group_128": Scheme(weight=_per_group(128, _int4)),
    "a_int8": Scheme(activation=_per_row(_int8)),
    "a_fp8": Scheme(activation=_per_row(_float8)),
    "w_a_int8": Scheme(weight=_per_row(_int8), activation=_per_row(_int8)),
    "w_zero_point_a_int8": Scheme(weight=_int8_with_zero_point, activation=_per_row(_int8)),
    "w_a_fp8": Scheme(weight=_per_row(_float8), activation=_per_row(_float8)),
}
