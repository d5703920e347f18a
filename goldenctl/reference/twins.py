"""What upstream rounding becomes: the errors of several noisy copies of the truth, its twins.

Beside the truth, and stacked after it along the batch, run copies to every op of which noise
of its own rounding is added; their distances from the truth are the floor of a budget
(docs/budgets.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goldenctl.reference.kernels import Noise

TWINS = 4
"""How many twins a truth has."""
MAX_SIGMAS = 3.0
_WIDENING = 3.0

# Draws standard normal numbers in the shape and type of a tensor.
Draw = Callable[[Tensor], Tensor]


def with_noise(exact: Tensor, noise: Noise, draw: Draw) -> Tensor:
    """Add an op's own rounding noise to the twins in ``exact``, ``[truths, 1 + TWINS, B, ...]``;
    the truths stay. Where the recorded operands are not finite, the noise is none."""
    added = draw(exact) * _finite(noise.own)
    if noise.shared is not None:  # one error of exactly one deviation for the whole row
        added += draw(exact[..., :1]).sign() * _finite(noise.shared)
    added[:, 0] = 0.0
    return exact + added


def _finite(noise: Tensor) -> Tensor:
    """Zero in place of NaN and Inf: twins of a finite truth stay finite."""
    return noise.nan_to_num(0.0, 0.0, 0.0)


def floors(errors: Tensor) -> tuple[Tensor, Tensor]:
    """L2 and largest element that upstream rounding may reach, from the twins' errors
    ``[TWINS, ..., n]``.

    The root mean square over the twins, wider where their errors are collinear: a row moved
    along one direction, as by a softmax between two tokens, has the tails of one Gaussian.
    """
    squares = errors.pow(2).sum(-1)  # [TWINS, ...]
    wider = 1.0 + _WIDENING * _collinearity(errors, squares)
    largest = errors.abs().amax(-1).pow(2).mean(0).sqrt()
    return squares.mean(0).sqrt() * wider, largest * wider


def _collinearity(errors: Tensor, squares: Tensor) -> Tensor:
    """Mean squared cosine between twins, weighted by their size: 1 / (degrees of freedom)."""
    first, second = torch.triu_indices(TWINS, TWINS, 1, device=errors.device)
    products = (errors[first] * errors[second]).sum(-1).pow(2).sum(0)
    sizes = (squares[first] * squares[second]).sum(0)
    return torch.where(sizes > 0, products / sizes, 0.0)


def own_budget(recorded: Tensor, truth: Tensor, sigma: Tensor) -> Tensor:
    """Return ``[..., 4]``: l2, max, floor_l2, floor_max of every row by the op's own noise."""
    own = (sigma.norm(dim=-1), sigma.amax(-1) * MAX_SIGMAS)
    return torch.stack([*l2_max(recorded - truth), *own], dim=-1)


def twin_budget(recorded: Tensor, passes: Tensor, own: Tensor) -> Tensor:
    """Return the same from the truth and its twins, ``[1 + TWINS, B, ..., n]``: the op's own
    floor, that of ``own``, always holds, whatever the twins drew. The floor is finite where
    the truth is, though the recorded operands, and so ``own``, may not be."""
    upstream = torch.stack(floors(passes[1:] - passes[0]), dim=-1)
    distance = torch.stack(l2_max(recorded - passes[0]), dim=-1)
    return torch.cat([distance, upstream.maximum(_finite(own[..., 2:]))], dim=-1)


def l2_max(error: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.vector_norm(error, dim=-1), error.abs().amax(-1)
