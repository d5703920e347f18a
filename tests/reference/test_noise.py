"""Tests of how far rounding may move an element: against errors that were made and measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from goldenctl.model.graph import Op
from goldenctl.reference.kernels import KERNELS, noise_of
from goldenctl.reference.rounding import Unit

UNIT = Unit.of("float32")
TOKENS, WIDE = 24, 5  # the column or channel that dwarfs the others


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).float().double()


def in_one_go(terms: np.ndarray) -> Tensor:
    """Sum the last axis in float32, one term after the other."""
    return torch.from_numpy(np.cumsum(terms, axis=-1, dtype=np.float32)[..., -1].astype("f8"))


def shares(op: Op, inputs: dict[str, Tensor], weights: dict[str, Tensor], got: Tensor) -> Tensor:
    """Errors of a result in standard deviations, with the exact one by the reference."""
    kernel = KERNELS[op.kind]
    exact = kernel(op.attrs, tuple(inputs.values()), tuple(weights.values()))
    sigma = noise_of(op, UNIT, inputs, {n: w.square() for n, w in weights.items()}, exact).sigma
    assert sigma.shape == exact.shape
    return (got - exact).abs() / sigma


def judge(found: Tensor) -> None:
    """No element errs by more than a Gaussian would, and none by nothing of that size."""
    assert found.max() < 5.0
    assert found.max() > 0.1


def test_a_column_of_large_weights_errs_by_its_own_size() -> None:
    x, weight = normal(1, TOKENS, 300), normal(64, 300, seed=1)
    weight[WIDE] *= 1000.0
    op = Op("linear", "up_proj", ("x",), ("w",))
    got = in_one_go((x[0, :, None] * weight).float().numpy())[None]
    found = shares(op, {"x": x}, {"w": weight}, got)
    judge(found)
    judge(found[..., WIDE])
    exact = x @ weight.T
    row = noise_of(op, UNIT, {"x": x}, {"w": weight.square()}, exact).sigma.norm(dim=-1)
    even = row / 8.0  # of 64 elements
    assert ((got - exact)[..., WIDE].abs() > even).any()


def test_scores_of_a_large_key_err_by_its_own_size() -> None:
    q, k = normal(1, TOKENS, 4, 32), normal(1, TOKENS, 2, 32, seed=1)
    k[:, WIDE] *= 1000.0
    op = Op("matmul_qk", "scores", ("q", "k"), attrs={"scale": 32**-0.5})
    keys = k.repeat_interleave(2, dim=2).permute(0, 2, 1, 3)
    terms = (q.permute(0, 2, 1, 3)[:, :, :, None] * keys[:, :, None]).float().numpy()
    judge(shares(op, {"q": q, "k": k}, {}, in_one_go(terms) * np.float32(32**-0.5)))


def test_a_large_channel_of_values_errs_by_its_own_size() -> None:
    probs, v = normal(1, 4, TOKENS, TOKENS).softmax(-1), normal(1, TOKENS, 2, 16, seed=1)
    v[..., WIDE] *= 1000.0
    op = Op("matmul_pv", "context", ("probs", "v"))
    values = v.repeat_interleave(2, dim=2).permute(0, 2, 3, 1)  # [B, H, D, T]
    terms = (probs[:, :, :, None] * values[:, :, None]).float().numpy()
    judge(shares(op, {"probs": probs, "v": v}, {}, in_one_go(terms).permute(0, 2, 1, 3)))


def test_a_large_pair_of_rope_errs_by_its_own_size() -> None:
    x, angles = normal(1, TOKENS, 2, 32), normal(TOKENS, 16, seed=1)
    x[..., WIDE] *= 1000.0
    op = Op("rope", "q_rope", ("x", "p", "sin", "cos"), attrs={"algo": "neox"})
    inputs = {"x": x, "p": torch.arange(TOKENS)[None], "sin": angles.sin(), "cos": angles.cos()}
    narrow = {n: t.float() if t.is_floating_point() else t for n, t in inputs.items()}
    got = KERNELS["rope"](op.attrs, tuple(narrow.values()), ())
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in narrow.items()}
    judge(shares(op, inputs, {}, got.double()))


def test_a_large_gate_errs_by_its_own_size() -> None:
    up, gate = normal(1, TOKENS, 64), normal(1, TOKENS, 64, seed=1)
    up[..., WIDE] *= 1000.0
    got = KERNELS["swiglu"]({}, (up.float(), gate.float()), ())
    judge(shares(Op("swiglu", "swiglu", ("u", "g")), {"u": up, "g": gate}, {}, got.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_zeros_has_no_noise(dtype: torch.dtype) -> None:
    """As of a padding token that is embedded as zeros."""
    x = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, -4.0]], dtype=dtype)
    weight = torch.ones(3, dtype=dtype)
    for op in (Op("rms_norm", "output", ("x",), ("w",)), Op("linear", "o", ("x",), ("w",))):
        weights = {"w": weight if op.kind == "rms_norm" else torch.eye(3, dtype=dtype)}
        sigma = noise_of(op, UNIT, {"x": x[None]}, weights, x[None]).sigma
        assert sigma[0, 0].abs().max() == 0.0
        assert torch.isfinite(sigma).all()
        assert sigma[0, 1, 2] > 0.0


def test_a_norms_error_is_one_factor_on_the_row() -> None:
    x = normal(1, TOKENS, 300)
    noise = noise_of(Op("rms_norm", "n", ("x",), ("w",)), UNIT, {"x": x}, {"w": x[0, 0]}, x)
    assert noise.shared is not None
    factors = noise.shared / x
    torch.testing.assert_close(factors, factors[..., :1].expand_as(factors))
    torch.testing.assert_close(
        noise.shared.norm(dim=-1), 0.5 * UNIT.sum * (300 / 3) ** 0.5 * x.norm(dim=-1)
    )
