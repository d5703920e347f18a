"""How often is a correct result noted as biased, and a truncated one not? Random ops in PyTorch.

``python benchmarks/bias_notes.py [--draws N]`` draws the operands of every op N times in each
dtype, tensors of 10,000 elements or a few more, and computes every correct alternative of the
selftest that fits, fused attention too, and the op cut off instead of rounded. It prints how many
``diff`` would note, and the least and largest bias of each.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import click
import numpy as np
import torch
from torch import Tensor

from goldenctl.diff.bias import measure_bias
from goldenctl.diff.metrics import score
from goldenctl.diff.sums import RowErrors
from goldenctl.dtypes import DTYPES
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.faulty import EMULATIONS, Call
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.kernels import KERNELS
from goldenctl.reference.weights import TORCH_DTYPES, to_numpy

TOKENS, ROWS, WIDTH, HEAD = 52, 160, 64, 16


def drawn(rng: torch.Generator, dtype: torch.dtype) -> Iterator[Call]:
    """Yield a call of every op that rounds, with operands like those of a model."""

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=rng) * std).to(dtype)

    x, scale = normal(1, ROWS, WIDTH), {"scale": HEAD**-0.5}
    angles = torch.arange(TOKENS)[:, None] * 0.5 ** torch.arange(HEAD // 2)[None]
    tables = torch.arange(TOKENS)[None], angles.sin().to(dtype), angles.cos().to(dtype)
    q, k, v = normal(1, TOKENS, 4, HEAD), normal(1, TOKENS, 2, HEAD), normal(1, TOKENS, 2, WIDTH)
    scores = normal(1, 4, TOKENS, TOKENS)
    probs = KERNELS["causal_softmax"]({}, (scores,), ())
    weight = normal(ROWS * 2, WIDTH, std=WIDTH**-0.5)
    yield Call("linear", {}, (x[:, : ROWS // 5],), (weight,))
    yield Call("rms_norm", {"epsilon": 1e-6}, (x,), (1 + 0.1 * normal(WIDTH),))
    yield Call("rope", {"algo": "neox"}, (normal(1, TOKENS, 13, HEAD), *tables), ())
    yield Call("matmul_qk", scale, (q, k), ())
    yield Call("causal_softmax", {}, (scores,), ())
    yield Call("matmul_pv", {}, (probs, v), ())
    yield Call("swiglu", {}, (normal(1, ROWS, WIDTH), x), ())
    yield Call("add", {}, (normal(1, ROWS, WIDTH), x), ())
    yield Call("sdpa", scale, (q, k, v), ())


def reference(call: Call) -> Tensor:
    """Compute a call as the reference does: fused attention by three ops."""
    if call.kind != "sdpa":
        return call.run()
    q, k, v = call.inputs
    scores = KERNELS["matmul_qk"](call.attrs, (q, k), ())
    return KERNELS["matmul_pv"]({}, (KERNELS["causal_softmax"]({}, (scores,), ()), v), ())


def results(call: Call) -> Iterator[tuple[str, Tensor]]:
    """Yield what else computes a call, by name; ``truncated`` is wrong."""
    if call.kind == "sdpa":
        yield from (
            (name, found) for name, f in FUSED.items() if (found := only_fused(f)(call)) is not None
        )
        return
    for name, alternative in ALTERNATIVES.items():
        found = alternative(call)
        if found is not None:
            yield name, found
    yield "truncated", EMULATIONS["truncated"](call)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    for dtype in ("float32", "bfloat16", "float16"):
        rng = torch.Generator().manual_seed(11)
        found: dict[tuple[str, str], list[tuple[bool, float]]] = defaultdict(list)
        for _ in range(draws):
            for call in drawn(rng, TORCH_DTYPES[dtype]):
                expected = to_numpy(reference(call))
                for name, value in results(call):
                    rows = RowErrors.of(expected)
                    score(to_numpy(value), expected, atol=0.0, rtol=0.0, rows=rows)
                    bias = measure_bias(rows, DTYPES[dtype].eps)
                    if bias is not None:
                        found[name, call.kind].append((bias.is_noted, abs(bias.units)))
        for (name, kind), said in found.items():
            noted, units = zip(*said, strict=True)
            spread = f"{min(units):.2f} to {max(units):.2f} units"
            click.echo(
                f"{dtype:8} {kind:14} {name:46} noted {sum(noted):,} of {len(noted):,}; {spread}"
            )
        right = [n for (name, _), said in found.items() if name != "truncated" for n, _ in said]
        cut = [n for (name, _), said in found.items() if name == "truncated" for n, _ in said]
        click.echo(f"{dtype:8} correct: {sum(right):,} of {len(right):,} noted")
        click.echo(f"{dtype:8} truncated: {np.mean(cut):.2%} of {len(cut):,} noted")


if __name__ == "__main__":
    main()
