"""What upstream rounding becomes: the errors of several noisy copies of the truth, its twins.

Beside the truth run copies to every op of which noise of its own rounding is added; their
distances from the truth are the floor of a budget (docs/budgets.md). What runs are not results but
their moves from the recorded ones, ``[scope, 1 + TWINS, B, ...]`` in float32, the truth's first.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from goldenctl.reference.rounding import Noise

TWINS = 4
"""How many twins a truth has."""
PASSES = 1 + TWINS
MAX_SIGMAS = 3.0
_WIDENING = 3.0
_TABLE = 1 << 21  # numbers


def moves_dtype(dtype: str) -> str:
    """The type in which the moves of results in ``dtype`` are carried."""
    return "float64" if dtype == "float64" else "float32"


def product_dtype(dtype: str, device: str) -> str:
    """The type in which moves are multiplied by weights: bfloat16, which errs by far less than
    the percent that a budget needs, where the processor multiplies it faster than float32."""
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = device == "cpu" and (able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bfloat16" if fast and dtype != "float64" else moves_dtype(dtype)


@cache
def _table(dtype: torch.dtype, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(_TABLE)
    return torch.randn(_TABLE, generator=generator).to(device, dtype)


class Draws:
    """Standard normal numbers: windows of one table, each from a place drawn at random.

    To draw every number would take as long as the products. Two windows that overlap do so at
    different elements, and what they become in a row is independent.
    """

    def __init__(self, seed: int, dtype: torch.dtype, device: str | torch.device) -> None:
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)
        self._table = _table(dtype, str(device))

    def windows(self, count: int, like: Tensor) -> list[Tensor]:
        """Return ``count`` windows in the shape of a tensor; none may be written to."""
        size, table = like.numel(), self._table
        if 2 * size > len(table):
            table = table.repeat(-(-2 * size // len(table)))
        places = torch.randint(len(table) - size, (count,), generator=self._generator).tolist()
        return [table[at : at + size].view(like.shape) for at in places]

    def state(self) -> Tensor:
        return self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        self._generator.set_state(state)


def add_noise(twins: Tensor, noise: Noise, draws: Draws) -> None:
    """Add an op's own rounding noise to the moves of twins, ``[scope, TWINS, B, ...]``. Where
    the recorded operands are not finite, the noise is none."""
    own = _finite(noise.own)
    each = [twin for scope in twins for twin in scope]
    for twin, draw in zip(each, draws.windows(len(each), own), strict=True):
        twin.addcmul_(draw, own)
    if noise.shared is not None:  # one error of exactly one deviation for the whole row
        shared = _finite(noise.shared)
        for twin, draw in zip(each, draws.windows(len(each), shared[..., :1]), strict=True):
            twin.addcmul_(draw.sign(), shared)


def _finite(noise: Tensor) -> Tensor:
    """Zero in place of NaN and Inf: twins of a finite truth stay finite."""
    return noise.nan_to_num(0.0, 0.0, 0.0)


def floors(errors: Tensor) -> tuple[Tensor, Tensor]:
    """L2 and largest element that upstream rounding may reach, from the twins' errors
    ``[TWINS, ..., n]``.

    The root mean square over the twins, wider where their errors are collinear: a row moved
    along one direction, as by a softmax between two tokens, has the tails of one Gaussian.
    """
    products = torch.einsum("i...n,j...n->...ij", errors, errors).double()
    squares = products.diagonal(dim1=-2, dim2=-1).sum(-1)  # [...]
    wider = 1.0 + _WIDENING * _collinearity(products, squares)
    largest = _largest(errors).pow(2).mean(0).sqrt()
    return (squares / TWINS).sqrt() * wider, largest * wider


def _collinearity(products: Tensor, squares: Tensor) -> Tensor:
    """Mean squared cosine between twins, weighted by their size: 1 / (degrees of freedom)."""
    own = products.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    sizes = squares.square() - own  # of all pairs, both ways round
    return torch.where(sizes > 0, (products.square().sum((-2, -1)) - own) / sizes, 0.0)


def own_budget(error: Tensor, sigma: Tensor) -> Tensor:
    """Return ``[..., 4]``: l2, max, floor_l2, floor_max of every row by the op's own noise."""
    own = (torch.linalg.vector_norm(sigma, dim=-1), sigma.amax(-1) * MAX_SIGMAS)
    return torch.stack([*l2_max(error), *own], dim=-1)


def twin_budget(error: Tensor, twins: Tensor, own: Tensor) -> Tensor:
    """Return the same from the truth's ``error`` and its twins' distances from the truth,
    ``[TWINS, B, ..., n]``: the op's own floor, that of ``own``, always holds, whatever the twins
    drew. The floor is finite where the truth is, though the recorded operands, and so ``own``,
    may not be."""
    upstream = torch.stack(floors(twins), dim=-1)
    distance = torch.stack(l2_max(error), dim=-1)
    return torch.cat([distance, upstream.maximum(_finite(own[..., 2:]))], dim=-1)


def l2_max(error: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.vector_norm(error, dim=-1), _largest(error)


def _largest(error: Tensor) -> Tensor:
    return torch.maximum(error.amax(-1), -error.amin(-1))  # writes no absolute values
