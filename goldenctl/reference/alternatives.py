"""The correct alternatives to the reference's arithmetic: none may be called wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goldenctl.reference.faulty import Call
from goldenctl.reference.kernels import ARITHMETIC, KERNELS
from goldenctl.reference.rounding import Kernel

Alternative = Callable[[Call], Tensor | None]


def _wide_inside(dtype: torch.dtype) -> Alternative:
    """The whole op in a wider type, rounded once at its end."""

    def compute(call: Call) -> Tensor | None:
        stored = call.inputs[0].dtype
        if call.kind == "embedding":
            return None
        inputs, weights = (
            tuple(x.to(dtype) if x.is_floating_point() else x for x in group)
            for group in (call.inputs, call.weights)
        )
        return KERNELS[call.kind](call.attrs, inputs, weights).to(stored)

    return compute


def _in_place_of(kind: str, kernel: Kernel) -> Alternative:
    """Another kernel for the ops of one kind."""

    def compute(call: Call) -> Tensor | None:
        return kernel(call.attrs, call.inputs, call.weights) if call.kind == kind else None

    return compute


ALTERNATIVES: dict[str, Alternative] = {
    "float64 inside": _wide_inside(torch.float64),
    "float32 inside": _wide_inside(torch.float32),
    **{
        label: _in_place_of(kind, kernel)
        for kind, arithmetic in ARITHMETIC.items()
        for label, kernel in arithmetic.alternatives.items()
    },
}
