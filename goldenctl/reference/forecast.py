"""How long an oracle will take: what it has to compute, at the speed that this machine shows.

Counted are the multiplications of every op and the numbers that it yields; measured, in a tenth
of a second, are a product in the wide type, one in that of moves, and a pass over memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from goldenctl.golden.layout import computed_sublayers, oracle_dtype
from goldenctl.golden.steps import Step, steps
from goldenctl.model.graph import Op, Sublayer, own_name
from goldenctl.reference.carried import SCOPES
from goldenctl.reference.record import Recording
from goldenctl.reference.twins import PASSES, moves_dtype, product_dtype
from goldenctl.reference.weights import TORCH_DTYPES

_ROWS, _SIZE = 256, 1024  # of the product that is measured
_NUMBERS = 1 << 20
_TRIES = 3
# How many times as long as one pass over memory it takes to do all that is done with a number of
# a pass, and to copy a weight; and seconds for each op of a step besides. Fitted to two layers
# of Qwen3-0.6B's shape at 512 tokens, and to six of them at 32.
_PASSES_OF_NUMBER = 48.0
_PASSES_OF_WEIGHT = 15.0
_S_OF_OP = 1.2e-3
_WORTH_MEASURING_S = 1.0


@dataclass(frozen=True)
class Work:
    """Multiplications of linear ops and of attention, numbers yielded, weights read, and how
    many ops."""

    linear: float = 0.0
    attention: float = 0.0
    numbers: float = 0.0
    weights: float = 0.0
    ops: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.linear + other.linear,
            self.attention + other.attention,
            self.numbers + other.numbers,
            self.weights + other.weights,
            self.ops + other.ops,
        )


@dataclass(frozen=True)
class Speed:
    """Seconds for a multiplication in the wide type, in that of products of moves, in that of
    moves; and for a number to be read and written."""

    wide_s: float
    product_s: float
    moves_s: float
    number_s: float
    copies: int  # of weights, counted in float32

    def of(self, work: Work) -> float:
        passes = SCOPES * PASSES
        linear = work.linear * (self.wide_s + passes * self.product_s)
        attention = work.attention * (2 * self.wide_s + 2 * passes * self.moves_s)
        numbers = work.numbers * passes * _PASSES_OF_NUMBER * self.number_s
        weights = work.weights * self.copies * _PASSES_OF_WEIGHT * self.number_s
        return linear + attention + numbers + weights + work.ops * _S_OF_OP


_USUAL = Speed(5e-11, 2.5e-11, 2.5e-11, 1e-10, 4)


def oracle_seconds(recording: Recording) -> float:
    """Return how many seconds budgets would take beside the recording itself."""
    work = _work(recording)
    dtypes = (recording.dtype, *recording.selection.budget_dtypes)
    usual = _USUAL.of(work) * len(dtypes)
    if usual < _WORTH_MEASURING_S:
        return usual
    return sum(_measured(dtype, recording.device).of(work) for dtype in dtypes)


def _measured(dtype: str, device: str) -> Speed:
    wide, product = oracle_dtype(dtype), product_dtype(dtype, device)
    moves = TORCH_DTYPES[moves_dtype(dtype)]
    return Speed(
        _product_s(TORCH_DTYPES[wide], device),
        _product_s(TORCH_DTYPES[product], device),
        _product_s(moves, device),
        _number_s(moves, device),
        1 if wide == product else 4,  # in float64, in float32, and squared
    )


def _work(recording: Recording) -> Work:
    total = Work()
    for case in recording.cases:
        for step in steps(case):
            for sublayer in computed_sublayers(recording.config, recording.selection, step):
                for op in sublayer.ops:
                    total += _of_op(recording, step, sublayer, op)
    return total


def _of_op(recording: Recording, step: Step, sublayer: Sublayer, op: Op) -> Work:
    sizes = step.sizes(recording.config)

    def of_token(name: str) -> int:
        dims = sublayer.dims(own_name(name))
        return math.prod(sizes[d] for d in dims if d not in ("batch", "token", "last_token"))

    dims = sublayer.dims(op.output)
    numbers = math.prod(sizes[dim] for dim in dims)
    if op.kind == "linear":
        weights = of_token(op.output) * of_token(op.inputs[0])
        return Work(numbers * of_token(op.inputs[0]), numbers=numbers, weights=weights, ops=1)
    if op.kind == "matmul_qk":
        return Work(attention=numbers * sizes["head_dim"], numbers=numbers, ops=1)
    if op.kind == "matmul_pv":  # of keys that are seen: half of them
        seen = sizes["key_token"] - sizes["token"] / 2
        return Work(attention=numbers * seen, numbers=numbers, ops=1)
    return Work(numbers=numbers, ops=1)


def _product_s(kind: torch.dtype, device: str) -> float:
    """Seconds for one multiplication of a product of matrices."""
    rows = torch.ones(_ROWS, _SIZE, dtype=kind, device=device)
    weight = torch.ones(_SIZE, _SIZE, dtype=kind, device=device)
    took = _fastest(lambda: torch.nn.functional.linear(rows, weight), device)
    return took / (_ROWS * _SIZE * _SIZE)


def _number_s(kind: torch.dtype, device: str) -> float:
    """Seconds to read two numbers, and write one."""
    a, b = (torch.ones(_NUMBERS, dtype=kind, device=device) for _ in range(2))
    return _fastest(lambda: a.addcmul_(b, b), device) / _NUMBERS


def _fastest(act: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(1 + _TRIES):
        started = time.perf_counter()
        act()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
