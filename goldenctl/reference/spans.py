"""Spans of tokens: a sublayer's ops on some tokens at a time, in memory that a cache holds.

Ops act on each token by itself, but for attention, which reads the keys and values of all
tokens. So a sublayer falls into parts; within one, a span of tokens goes through all ops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from goldenctl.model.graph import Op, Sublayer, own_name

_SPAN_NUMBERS = 1 << 22  # of the largest tensor of a span, all passes together
# The input that an op reads of all tokens, by its kind.
_WHOLE = {"matmul_qk": 1, "matmul_pv": 1}


@dataclass(frozen=True)
class Span:
    """The tokens ``start`` to ``stop`` of a step, and how many tokens they may see."""

    start: int
    stop: int
    visible: int

    def tokens(self, value: Tensor, dims: Sequence[str], ahead: int = 0) -> Tensor:
        """Return these tokens of a tensor with such dims after ``ahead`` others."""
        if "token" not in dims:
            return value
        return value.narrow(dims.index("token") + ahead, self.start, self.stop - self.start)

    def seen(self, value: Tensor, dims: Sequence[str], ahead: int = 0) -> Tensor:
        """Return what they may see of a tensor with key tokens. A softmax on the last of the
        tokens that are seen is causal as it stands."""
        if "key_token" not in dims:
            return value
        return value.narrow(dims.index("key_token") + ahead, 0, self.visible)


def parts(sublayer: Sublayer) -> Iterator[tuple[Op, ...]]:
    """Yield runs of ops: what an op reads of all tokens was made in an earlier one."""
    part: list[Op] = []
    for op in sublayer.ops:
        if whole_input(op) in {before.output for before in part}:
            yield tuple(part)
            part = []
        part.append(op)
    yield tuple(part)


def whole_input(op: Op) -> str:
    """Return the tap that an op reads of all tokens; empty when there is none."""
    return own_name(op.inputs[_WHOLE[op.kind]]) if op.kind in _WHOLE else ""


def sees_all(sublayer: Sublayer, op: Op) -> bool:
    """Whether an op yields something of every key token, seen or not: scores."""
    return bool(whole_input(op)) and "key_token" in sublayer.dims(op.output)


def spans(tokens: int, past: int, numbers: int, *, alone: bool) -> Iterator[Span]:
    """Yield the spans of a step after ``past`` tokens, of which each takes ``numbers``;
    ``alone`` asks for a single one."""
    count = 1 if alone else math.ceil(tokens / max(1, _SPAN_NUMBERS // numbers))
    for number in range(count):
        stop = (number + 1) * tokens // count
        yield Span(number * tokens // count, stop, past + stop)
