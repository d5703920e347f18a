"""Every op of the protocol on the real InfiniCore, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_plans import EPS, NUMPY, Plan, row_major

DTYPES = ("float32", "bfloat16", "float16")


def draw(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(NUMPY[dtype])


def f64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def close(actual: np.ndarray, expected: np.ndarray, dtype: str, factor: float = 2.0) -> None:
    """Assert an error of a few units in the last place of the largest value."""
    error = np.abs(f64(actual) - expected).max()
    assert error <= factor * EPS[dtype] * max(1.0, np.abs(expected).max())


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def one_op(
    plan: Plan, harness: Path, kind: str, out: list[int], *inputs: np.ndarray, **parameters: Any
) -> np.ndarray:
    layer = plan.sublayer()
    for i, array in enumerate(inputs):
        layer.load(f"x{i}", array)
    layer.store("y", out)
    layer.op(kind, "y", *(f"x{i}" for i in range(len(inputs))), **parameters)
    ran = plan.run(harness)
    assert ran.status == 0, ran.events
    assert ran.kinds() == ["ready", "op_start", "op_done", "sublayer_done", "finished"]
    return ran.outputs["y"]


def test_gather(tmp_path: Path, harness: Path, dtype: str) -> None:
    table, ids = draw(dtype, 9, 8), np.array([8, 0, 3, 3], np.int32)
    y = one_op(Plan(tmp_path, dtype), harness, "gather", [4, 8], table, ids)
    assert y.tobytes() == table[ids].tobytes()


@pytest.mark.parametrize("shape", [(5, 32), (5, 3, 16)], ids=["rows", "heads"])
def test_rms_norm(tmp_path: Path, harness: Path, dtype: str, shape: tuple[int, ...]) -> None:
    x, w = draw(dtype, *shape), draw(dtype, shape[-1], seed=1)
    y = one_op(Plan(tmp_path, dtype), harness, "rms_norm", list(shape), x, w, epsilon=1e-6)
    scale = np.sqrt((f64(x) ** 2).mean(-1, keepdims=True) + 1e-6)
    close(y, f64(x) / scale * f64(w), dtype)


def test_rms_norm_of_zeros_shows_epsilon(tmp_path: Path, harness: Path) -> None:
    x = np.full((1, 4), 1e-3, np.float32)
    w = np.ones(4, np.float32)
    y = one_op(Plan(tmp_path), harness, "rms_norm", [1, 4], x, w, epsilon=1e-2)
    np.testing.assert_allclose(y, 1e-3 / np.sqrt(1e-6 + 1e-2), rtol=1e-6)


def test_gemm(tmp_path: Path, harness: Path, dtype: str) -> None:
    a, b = draw(dtype, 5, 16), draw(dtype, 16, 7, seed=1)
    y = one_op(Plan(tmp_path, dtype), harness, "gemm", [5, 7], a, b, alpha=0.5, beta=0)
    close(y, 0.5 * f64(a) @ f64(b), dtype)


def test_linear_with_bias(tmp_path: Path, harness: Path, dtype: str) -> None:
    x, w, bias = draw(dtype, 5, 16), draw(dtype, 7, 16, seed=1), draw(dtype, 7, seed=2)
    plan = Plan(tmp_path, dtype)
    layer = plan.sublayer()
    for name, array in {"x": x, "w": w, "bias": bias}.items():
        layer.load(name, array)
    layer.store("y", [5, 7])
    layer.op("rearrange", "y", layer.view("bias", [5, 7], [0, 1]))
    layer.op("gemm", "y", "x", layer.view("w", [16, 7], [1, 16]), alpha=1, beta=1)
    close(plan.run(harness).outputs["y"], f64(x) @ f64(w).T + f64(bias), dtype)


@pytest.mark.parametrize(("batch", "heads", "kv_heads"), [(1, 4, 2), (2, 4, 2), (2, 3, 3)])
def test_grouped_attention_scores(
    tmp_path: Path, harness: Path, dtype: str, batch: int, heads: int, kv_heads: int
) -> None:
    """Five dimensions: a key head is shared by its group of queries with stride 0."""
    tokens, keys, dim, group = 3, 5, 8, heads // kv_heads
    q, k = draw(dtype, batch, tokens, heads, dim), draw(dtype, batch, keys, kv_heads, dim, seed=1)
    plan = Plan(tmp_path, dtype)
    layer = plan.sublayer()
    layer.load("q", q)
    layer.load("k", k)
    layer.store("y", [batch, heads, tokens, keys])
    five = [batch, kv_heads, group]
    layer.op(
        "gemm",
        layer.view("y", [*five, tokens, keys]),
        layer.view(
            "q", [*five, tokens, dim], [tokens * heads * dim, group * dim, dim, heads * dim, 1]
        ),
        layer.view("k", [*five, dim, keys], [keys * kv_heads * dim, dim, 0, 1, kv_heads * dim]),
        alpha=dim**-0.5,
        beta=0,
    )
    shared = np.repeat(f64(k), group, axis=2)
    expected = np.einsum("bshd,bthd->bhst", f64(q), shared) * dim**-0.5
    close(plan.run(harness).outputs["y"], expected, dtype)


@pytest.mark.parametrize("algo", ["neox", "gptj"])
def test_rope(tmp_path: Path, harness: Path, dtype: str, algo: str) -> None:
    x, positions = draw(dtype, 4, 3, 8), np.array([0, 5, 2, 6], np.int32)
    angles = np.arange(7)[:, None] * 10.0 ** -np.arange(4)
    sin, cos = np.sin(angles).astype(NUMPY[dtype]), np.cos(angles).astype(NUMPY[dtype])
    plan = Plan(tmp_path, dtype)
    y = one_op(plan, harness, "rope", [4, 3, 8], x, positions, sin, cos, algo=algo)
    s, c = f64(sin)[positions][:, None], f64(cos)[positions][:, None]
    first, second = (
        (slice(0, 4), slice(4, 8)) if algo == "neox" else (slice(0, 8, 2), slice(1, 8, 2))
    )
    expected = np.empty(x.shape)
    expected[..., first] = f64(x)[..., first] * c - f64(x)[..., second] * s
    expected[..., second] = f64(x)[..., first] * s + f64(x)[..., second] * c
    close(y, expected, dtype)


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (2, 3, 5), (4, 1, 6)])
def test_causal_softmax(tmp_path: Path, harness: Path, dtype: str, shape: tuple[int, ...]) -> None:
    x = draw(dtype, *shape)
    y = one_op(Plan(tmp_path, dtype), harness, "causal_softmax", list(shape), x)
    rows, columns = shape[-2:]
    hidden = np.arange(columns) > np.arange(rows)[:, None] + columns - rows
    e = np.where(hidden, 0.0, np.exp(f64(x) - f64(x).max()))
    close(y, e / e.sum(-1, keepdims=True), dtype, factor=4)
    assert (y[..., hidden] == 0).all()


BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "swiglu": lambda up, gate: gate / (1 + np.exp(-gate)) * up,
}


@pytest.mark.parametrize("kind", BINARY)
def test_binary(tmp_path: Path, harness: Path, dtype: str, kind: str) -> None:
    a, b = draw(dtype, 3, 8), draw(dtype, 3, 8, seed=1)
    y = one_op(Plan(tmp_path, dtype), harness, kind, [3, 8], a, b)
    close(y, BINARY[kind](f64(a), f64(b)), dtype)


def test_add_broadcasts_a_row(tmp_path: Path, harness: Path, dtype: str) -> None:
    a, row = draw(dtype, 3, 8), draw(dtype, 8, seed=1)
    plan = Plan(tmp_path, dtype)
    layer = plan.sublayer()
    layer.load("a", a)
    layer.load("row", row)
    layer.store("y", [3, 8])
    layer.op("add", "y", "a", layer.view("row", [3, 8], [0, 1]))
    close(plan.run(harness).outputs["y"], f64(a) + f64(row), dtype)


def test_rearrange_of_any_strides(tmp_path: Path, harness: Path, dtype: str) -> None:
    x = draw(dtype, 4, 6)
    plan = Plan(tmp_path, dtype)
    layer = plan.sublayer()
    layer.load("x", x)
    layer.store("transposed", [6, 4])
    layer.store("reversed", [4, 6])
    layer.store("halves", [4, 6])
    layer.op("rearrange", "transposed", layer.view("x", [6, 4], [1, 6]))
    layer.op("rearrange", "reversed", layer.view("x", [4, 6], [-6, 1], 18))
    for start in (0, 3):  # two ops that each write a part of one tensor
        part = [4, 3], [6, 1], start
        layer.op("rearrange", layer.view("halves", *part), layer.view("x", *part))
    outputs = plan.run(harness).outputs
    assert outputs["transposed"].tobytes() == x.T.tobytes()
    assert outputs["reversed"].tobytes() == x[::-1].tobytes()
    assert outputs["halves"].tobytes() == x.tobytes()


def test_sdpa_is_unsupported(tmp_path: Path, harness: Path) -> None:
    q, kv = draw("float32", 1, 4, 3, 8), draw("float32", 1, 2, 5, 8)
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    for name, array in {"q": q, "k": kv, "v": kv}.items():
        layer.load(name, array)
    layer.store("y", [1, 4, 3, 8])
    layer.op("sdpa", "y", "q", "k", "v", alpha=0.35, tap="context")
    failure = plan.run(harness).failure
    assert (failure["tap"], failure["op"], failure["reason"]) == ("context", "sdpa", "unsupported")


def test_two_runs_give_the_same_bits(tmp_path: Path, harness: Path, dtype: str) -> None:
    results = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        a, b = draw(dtype, 16, 64), draw(dtype, 64, 32, seed=1)
        plan = Plan(folder, dtype, top={"repeat": 3})
        results.append(one_op(plan, harness, "gemm", [16, 32], a, b, alpha=1, beta=0).tobytes())
    assert results[0] == results[1]


def test_row_major_helper() -> None:
    assert row_major([2, 3, 4]) == [12, 4, 1]
