"""Tests how far results move: against the difference of two results in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goldenctl.model.graph import Op
from goldenctl.reference.kernels import KERNELS
from goldenctl.reference.response import RESPONSES, respond

B, S, T, H, K, D, M, P = 2, 5, 7, 4, 2, 8, 24, 3


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


HIDDEN, SCORES = (B, S, M), (B, H, S, T)
# Of each op: its inputs' shapes, which of them move, and its weights' shapes.
CASES: dict[str, tuple[list[tuple[int, ...]], int, list[tuple[int, ...]]]] = {
    "rms_norm": ([HIDDEN], 1, [(M,)]),
    "linear": ([HIDDEN], 1, [(16, M), (16,)]),
    "rope": ([(B, S, H, D), (B, S), (S, D // 2), (S, D // 2)], 1, []),
    "matmul_qk": ([(B, S, H, D), (B, T, K, D)], 2, []),
    "causal_softmax": ([SCORES], 1, []),
    "matmul_pv": ([SCORES, (B, T, K, D)], 2, []),
    "swiglu": ([HIDDEN, HIDDEN], 2, []),
    "add": ([HIDDEN, HIDDEN], 2, []),
}
ATTRS = {"epsilon": 1e-6, "algo": "neox", "scale": D**-0.5}


def test_every_response_is_tried() -> None:
    assert set(RESPONSES) == set(CASES) | {"expert_linear"}


@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_a_move_to_another_expert_moves_by_the_difference_of_both(size: float) -> None:
    routing = torch.zeros(B, S, 4, dtype=torch.float64)
    routing[..., :2] = torch.tensor([0.6, 0.4])
    to_others = torch.zeros(P, B, S, 4, dtype=torch.float64)
    to_others[1, 0, :, 1:3] = torch.tensor([-0.4, 0.4])
    x, move = normal(B, S, M, seed=1), normal(P, B, S, M, seed=2) * size
    weights = tuple(normal(16, M, seed=20 + n) for n in range(4))
    op = Op("expert_linear", "out", ("x", "routing"), attrs={"choices": 2})
    kernel = KERNELS[op.kind]
    result = kernel(op.attrs, (x, routing), weights)
    actual = respond(op, (x, routing), (move, to_others), weights, result)
    for n in range(P):
        expected = kernel(op.attrs, (x + move[n], routing + to_others[n]), weights) - result
        torch.testing.assert_close(actual[n], expected)


@pytest.mark.parametrize("size", [1e-7, 1e-2, 3.0, 20.0])
@pytest.mark.parametrize("kind", [*CASES, "by difference"])
def test_it_is_the_difference_of_two_results(
    kind: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "by difference":
        kind = "swiglu"
        monkeypatch.delitem(RESPONSES, kind)
    shapes, moving, weight_shapes = CASES[kind]
    inputs = [normal(*shape, seed=n) for n, shape in enumerate(shapes)]
    if kind == "rope":
        inputs[1] = torch.arange(S).expand(B, S)
    if kind == "matmul_pv":
        inputs[0] = inputs[0].softmax(-1)
    moves = [normal(P, *shape, seed=9 + n) * size for n, shape in enumerate(shapes[:moving])]
    weights = tuple(normal(*shape, seed=20 + n) for n, shape in enumerate(weight_shapes))
    op = Op(kind, "out", tuple(map(str, range(len(inputs)))), attrs=ATTRS)
    result = KERNELS[kind](ATTRS, tuple(inputs), weights)
    expected = torch.stack(
        [
            KERNELS[kind](
                ATTRS,
                (*(x + move[n] for x, move in zip(inputs, moves, strict=False)), *inputs[moving:]),
                weights,
            )
            - result
            for n in range(P)
        ]
    )
    narrow = [
        tuple(x.float() if x.is_floating_point() else x for x in group)
        for group in (inputs, moves, weights, (result,))
    ]
    still = (None,) * (len(inputs) - moving)
    actual = respond(op, narrow[0], (*narrow[1], *still), narrow[2], narrow[3][0])
    assert actual.shape == expected.shape
    worst = (actual - expected).abs().max() / expected.abs().max()
    assert worst < 2e-5
