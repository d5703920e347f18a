"""The watch for NaN and Inf in a recording: the first op, in execution order, that yields one,
whether a weight is to blame, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from goldenctl.errors import printable
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import Op, Sublayer
from goldenctl.places import short_name
from goldenctl.reference.forward import State
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader

_SLICE_ROWS = 1024
_WIDER = {"float16": "bfloat16 or float32", "bfloat16": "float32", "float32": "float64"}


class Watch:
    """Observes a forward pass until the first op whose result is not finite.

    No tensor of a sublayer is meant to hold NaN or Inf: masks are kept as what is visible, and
    what they hide has a probability of zero. ``found`` is a line that says which op, why and
    what to do; empty while all is finite.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: str) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device
        self.found = ""

    def embedding(self, sublayer: Sublayer, state: State) -> None:
        self._look(sublayer, state, sublayer.ops[0], state.hidden)

    def sublayer(self, sublayer: Sublayer, state: State, recorded: Mapping[str, Tensor]) -> None:
        for op in sublayer.ops:
            self._look(sublayer, state, op, recorded[op.output])

    def logits(
        self, sublayer: Sublayer, state: State, _hidden: Tensor, value: Tensor, _first: int
    ) -> None:
        self._look(sublayer, state, sublayer.ops[0], value)

    def state(self) -> dict[str, Tensor]:
        """What has to be kept of it when a recording is interrupted."""
        return {"found": torch.tensor(list(self.found.encode()), dtype=torch.uint8)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.found = bytes(state["found"].tolist()).decode()

    def _look(self, sublayer: Sublayer, state: State, op: Op, value: Tensor) -> None:
        if self.found or is_finite(value):
            return
        path = state.path(sublayer)
        where = f"{short_name(path)}.{op.output} (op {op.kind})"
        nan = int(torch.isnan(value).sum())
        held = " and ".join(
            f"{count:,} {what}"
            for count, what in ((nan, "NaN"), (int(torch.isinf(value).sum()), "Inf"))
            if count
        )
        said = (
            f"PyTorch itself yields {held} in {self._dtype}, first at {where} of {state.step.path}"
        )
        self.found = printable(f"{said}; {self._why(op)}")

    def _why(self, op: Op) -> str:
        wider = _WIDER.get(self._dtype)
        remedy = f"record with --dtype {wider}" if wider else "no wider dtype is there"
        for name in op.weights:
            holds, largest = self._weight(name)
            if holds:
                return f"its weight {name} holds {holds} in the checkpoint, so no dtype helps"
            if largest > torch.finfo(TORCH_DTYPES[self._dtype]).max:
                return f"its weight {name} has values up to {largest:.3g}: {remedy}"
        return f"rows that are not finite cannot be judged: {remedy}"

    def _weight(self, name: str) -> tuple[str, float]:
        """What a stored weight holds that is not finite, and its largest finite size."""
        loader = WeightLoader(self._checkpoint, "float64", self._device)
        held, largest = {"NaN": False, "Inf": False}, 0.0
        for start in range(0, loader.row_count(name), _SLICE_ROWS):
            part = loader.rows(name, start, start + _SLICE_ROWS)
            part = part[: loader.row_count(name) - start]
            held["NaN"] |= bool(torch.isnan(part).any())
            held["Inf"] |= bool(torch.isinf(part).any())
            largest = max(largest, float(part.nan_to_num(0.0, 0.0, 0.0).abs().max()))
        return " and ".join(what for what, there in held.items() if there), largest


def is_finite(value: Tensor) -> bool:
    """Whether all of a tensor is. Its sum is then as a rule finite too, and read in one pass."""
    total = value.sum(dtype=torch.promote_types(value.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(value).all())
