"""The budget of ``context`` for a fused attention kernel, which never sees recorded probs.

Its truth starts from what such a kernel is given: the rotated queries, and the keys and values
of all steps so far. Its twins round scores and probs on the way, as a kernel may.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from goldenctl.model.graph import Op, Sublayer
from goldenctl.reference.forward import apply
from goldenctl.reference.kernels import noise_of
from goldenctl.reference.response import respond
from goldenctl.reference.rounding import Unit
from goldenctl.reference.twins import TWINS, Draws, add_noise, own_budget, twin_budget

_SEED = 20_27
_FUSED = ("matmul_qk", "causal_softmax", "matmul_pv")


def fused_ops(sublayer: Sublayer) -> list[Op]:
    """Return the ops that a fused kernel computes as one; none outside attention."""
    return [op for op in sublayer.ops if op.kind in _FUSED]


def fused_budget(
    sublayer: Sublayer, unit: Unit, mine: Mapping[str, Tensor], recorded: Tensor, kind: torch.dtype
) -> Tensor:
    """Return ``[1, B, S, H, 4]`` float32 of ``recorded``, the context in the wide type.

    ``mine`` are the recorded tensors in the wide type: queries of the last tokens, keys and
    values of all. Moves are carried in the type ``kind``. The draws are the same for every
    sublayer: nothing has to be kept for a recording that goes on later.
    """
    draws = Draws(_SEED, kind, recorded.device)
    exact, light = dict(mine), {name: _narrow(value, kind) for name, value in mine.items()}
    moves: dict[str, Tensor] = {}
    for op in fused_ops(sublayer):
        exact[op.output] = truth = apply(op, exact, {})
        light[op.output] = _narrow(truth, kind)
        inputs = tuple(light[name] for name in op.inputs)
        given = tuple(moves.get(name) for name in op.inputs)
        twins = torch.zeros(TWINS, *truth.shape, dtype=kind, device=truth.device)
        if any(move is not None for move in given):
            twins = respond(op, inputs, given, (), light[op.output])
        noise = noise_of(op, unit, light, {}, light[op.output])
        add_noise(twins[None], noise, draws)
        moves[op.output] = twins
    own = own_budget(_narrow(recorded - truth, kind), noise.sigma)
    return twin_budget(_narrow(recorded - truth, kind), twins, own)[None].float()


def _narrow(value: Tensor, kind: torch.dtype) -> Tensor:
    return value.to(kind) if value.is_floating_point() else value
