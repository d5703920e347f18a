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
from goldenctl.reference.kernels import Unit, noise_of
from goldenctl.reference.twins import TWINS, own_budget, twin_budget, with_noise

_SEED = 20_27
_FUSED = ("matmul_qk", "causal_softmax", "matmul_pv")


def fused_ops(sublayer: Sublayer) -> list[Op]:
    """Return the ops that a fused kernel computes as one; none outside attention."""
    return [op for op in sublayer.ops if op.kind in _FUSED]


def fused_budget(
    sublayer: Sublayer, unit: Unit, mine: Mapping[str, Tensor], recorded: Tensor
) -> Tensor:
    """Return ``[1, B, S, H, 4]`` float32 of ``recorded``, the context in the wide type.

    ``mine`` are the recorded tensors in the wide type. The draws are the same for every
    sublayer: nothing has to be kept for a recording that goes on later.
    """
    generator = torch.Generator().manual_seed(_SEED)
    stacked = {name: torch.cat([value] * (1 + TWINS)) for name, value in _given(sublayer, mine)}

    def draw(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float32)
        return drawn.to(like.device, like.dtype)

    for op in fused_ops(sublayer):
        exact = apply(op, stacked, {})
        passes = torch.unflatten(exact, 0, (1, 1 + TWINS, -1))
        first = {name: value.chunk(1 + TWINS)[0] for name, value in stacked.items()}
        noise = noise_of(op, unit, first, {}, passes[0, 0])
        noisy = with_noise(passes, noise, draw)
        stacked[op.output] = noisy.flatten(0, 2)
    own = own_budget(recorded, passes[0, 0], noise.sigma)
    return twin_budget(recorded, noisy[0], own)[None].float()


def _given(sublayer: Sublayer, mine: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    ops = fused_ops(sublayer)
    made = {op.output for op in ops}
    names = dict.fromkeys(name for op in ops for name in op.inputs if name not in made)
    return [(name, mine[name]) for name in names]
