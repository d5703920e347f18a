"""The arithmetic of a mixture of experts, and its noise: E experts, of which k are chosen.

Shapes: M hidden, N the experts' own width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.reference.rounding import UNIFORM, Attrs, Unit, of_sum, terms, wide


def route(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    """[..., E] -> [..., E]: the weights of the likeliest ``choices`` experts, zero for others."""
    (logits,) = inputs
    probs = torch.softmax(logits, dim=-1, dtype=wide(logits.dtype))
    likeliest, index = torch.topk(probs, attrs["choices"], dim=-1)
    if attrs["renormalise"]:
        likeliest = likeliest / likeliest.sum(-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, index, likeliest.to(logits.dtype))


def softmax_of_chosen(
    attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]
) -> Tensor:
    """The exponentials of the chosen alone, divided by their sum or by that of all."""
    (logits,) = inputs
    powers = torch.exp((logits - logits.amax(-1, keepdim=True)).to(wide(logits.dtype)))
    likeliest, index = torch.topk(powers, attrs["choices"], dim=-1)
    summed = likeliest if attrs["renormalise"] else powers
    weights = likeliest / summed.sum(-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, index, weights.to(logits.dtype))


def chosen(attrs: Attrs, routing: Tensor) -> Tensor:
    """[..., E] -> [..., k]: the numbers of the chosen experts, ascending."""
    return torch.topk(routing, attrs["choices"], dim=-1)[1].sort(-1)[0]


def expert_linear(attrs: Attrs, inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
    """[..., M] or [..., k, M] -> [..., k, N]: the linear layer of each chosen expert.

    ``weights`` are E matrices [N, M], or one tensor of all of them.
    """
    x, routing = inputs
    matrices = weights[0] if weights[0].dim() == 3 else weights
    numbers = chosen(attrs, routing)
    slots = x if x.dim() > routing.dim() else x.unsqueeze(-2).expand(*numbers.shape, x.shape[-1])
    out = x.new_zeros(*numbers.shape, matrices[0].shape[0])
    for expert in set(numbers.flatten().tolist()):
        at = numbers == expert
        out[at] = F.linear(slots[at], matrices[expert])
    return out


def expert_linear_noise(
    unit: Unit,
    attrs: Attrs,
    inputs: tuple[Tensor, ...],
    squares: tuple[Tensor, ...],
    out: Tensor,
) -> Tensor:
    x, routing = inputs
    walk = expert_linear(attrs, (terms(x, squares[0]), routing), squares).sqrt()
    return of_sum(unit, x.shape[-1], torch.hypot(out, walk))


def expert_sum(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    """[..., k, M], [..., E] -> [..., M]: each product and each sum is rounded, in the order of the
    experts' numbers."""
    yielded, routing = inputs
    parts = yielded * _shares(attrs, routing)
    total = torch.zeros_like(parts[..., 0, :])
    for part in parts.unbind(-2):
        total = total + part
    return total


def expert_sum_noise(
    unit: Unit,
    attrs: Attrs,
    inputs: tuple[Tensor, ...],
    _weights: tuple[Tensor, ...],
    _out: Tensor,
) -> Tensor:
    # Each product may be rounded to the stored type, and each partial sum but the last.
    yielded, routing = inputs
    parts = yielded * _shares(attrs, routing)
    sums = parts.cumsum(-2)[..., :-1, :]
    squares = parts.pow(2).sum(-2) + sums.pow(2).sum(-2)
    return squares.sqrt() * (unit.store * UNIFORM)


def sum_in_wide(attrs: Attrs, inputs: tuple[Tensor, ...], _weights: tuple[Tensor, ...]) -> Tensor:
    """Products and sums in the wide type, rounded once."""
    yielded, routing = inputs
    kind = wide(yielded.dtype)
    return (yielded.to(kind) * _shares(attrs, routing).to(kind)).sum(-2).to(yielded.dtype)


def _shares(attrs: Attrs, routing: Tensor) -> Tensor:
    """[..., E] -> [..., k, 1]: what each chosen expert's result is multiplied by."""
    return routing.gather(-1, chosen(attrs, routing)).unsqueeze(-1)
