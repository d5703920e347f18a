"""Rotary embeddings among the calls: their algorithm, positions and tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.trace.args import inputs, named, outputs, scalar
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Ints, Place, flats_of, numbers_of, tag_of

_ROUNDINGS = 2.0  # of a table's entries, in its type
_ANGLE = 2.0**-22  # of an angle that was computed in float32


def rope(tracing: Tracing, call: Call) -> None:
    """``y, x, pos_ids, sin_table, cos_table``; queries and keys may come as one tensor."""
    (y, *_) = outputs(call)
    x = next((arg for arg in inputs(call) if arg.shape == y.shape), y)
    tags = tracing.tags(x)
    result = np.full(tags.shape, UNKNOWN, np.int64)
    for source in tracing.values.found(tags):
        place = None if source is None else tracing.choose("rope", [source])
        if source is None or place is None:
            continue
        tracing.check_input(place, 0, [source])
        mine = numbers_of(tags) == _number(tracing, source)
        result[mine] = tag_of(tracing.number(place), flats_of(tags[mine]))
        _check_algorithm(tracing, call, place)
        _check_positions(tracing, call, place, result)
        _check_tables(tracing, call, place)
    if (result == UNKNOWN).all():
        tracing.not_explained(call)
    tracing.yields(call, y, result)


def _number(tracing: Tracing, place: Place) -> int:
    return tracing.values.number(place)


def _check_algorithm(tracing: Tracing, call: Call, place: Place) -> None:
    algorithm = scalar(call, "algo", "rope_algo", "algorithm")
    if algorithm is not None and algorithm != 1 and "NEOX" not in str(algorithm):
        text = f"{place.tap} turns pairs of neighbours (GPT-J), the model pairs of halves (NeoX)"
        tracing.find(place, "scalar", text)


def _check_positions(tracing: Tracing, call: Call, place: Place, result: Tags) -> None:
    arg = named(call, "pos")
    tokens = tracing.now.tokens_of
    if arg is None or tokens is None or not tracing.calls.holds(arg.before):
        return
    given = tracing.calls.before(arg).astype(np.int64)
    number = tracing.number(place)
    first = result[..., 0]
    row, token, *_ = tracing.values.index(number, flats_of(np.where(first < 0, 0, first)))
    known = (first >= 0) & (numbers_of(first) == number)
    spread = _spread(given, token, known)
    if spread is None:
        return
    expected = tokens.positions[row, token]
    wrong = known & (spread != expected) & tokens.visible[row, token]
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        text = f"token {int(token[at])} stands at position {int(spread[at])}, expected "
        text += str(int(expected[at]))
        if spread[at] == 0 and token[at] > 0:
            text += ": positions start again at 0"
        tracing.find(place, "positions", text)


def _spread(given: Ints, token: Ints, known: NDArray[np.bool_]) -> Ints | None:
    """Return the position of each row of the rotated tensor, whichever axis holds its tokens."""
    if given.size == 1:
        return np.full(token.shape, int(given.reshape(-1)[0]), np.int64)
    if token.ndim > given.ndim and token.shape[: given.ndim] == given.shape:
        return np.broadcast_to(
            given.reshape(*given.shape, *[1] * (token.ndim - given.ndim)), token.shape
        )
    if given.ndim == 1:
        axes = [a for a, size in enumerate(token.shape) if size == len(given)]
        moving = [a for a in axes if (np.diff(token, axis=a) != 0).any()]
        for axis in moving or axes:
            shape = [1] * token.ndim
            shape[axis] = len(given)
            return np.broadcast_to(given.reshape(shape), token.shape)
    if given.ndim == 2 and token.ndim == 3 and token.shape[::2] == given.shape:
        return np.broadcast_to(given[:, None, :], token.shape)
    return None


def _check_tables(tracing: Tracing, call: Call, place: Place) -> None:
    for name, table_name in zip(
        ("sin", "cos"), tracing.flow.nodes[place].op.inputs[2:], strict=True
    ):
        arg = named(call, name)
        if arg is None or not tracing.calls.holds(arg.before):
            continue
        expected = np.asarray(tracing.golden.map(f"constants/{table_name}"))
        table = tracing.calls.before(arg).reshape(-1, arg.shape[-1])
        count, width = min(len(table), len(expected)), min(table.shape[1], expected.shape[1])
        difference = np.abs(
            table[:count, :width].astype(np.float64) - expected[:count, :width].astype(np.float64)
        )
        if not (difference <= _allowed(arg, expected.dtype.name, count)[:, None]).all():
            tracing.find(place, "tables", _said(tracing, arg, table))
            return


def _allowed(arg: Arg, golden_dtype: str, count: int) -> NDArray[np.float64]:
    eps = max(DTYPES[arg.dtype].eps, DTYPES[golden_dtype].eps)
    return np.asarray(_ROUNDINGS * eps + _ANGLE * np.arange(count), np.float64)


def _said(tracing: Tracing, arg: Arg, table: NDArray[np.generic]) -> str:
    """Say that the tables differ, and of which theta they are where that is plain to see."""
    text = "the rotary tables are not the model's"
    expected = tracing.golden.config.rope.rope_theta
    half = tracing.golden.info("constants/rope_sin").shape[1]
    if len(table) < 2 or half < 2 or "sin" not in arg.name:
        return text
    slowest = float(table[1, half - 1])  # the sine of so small an angle is the angle
    if not 0 < slowest < 1:
        return text
    theta = float(f"{slowest ** (-half / (half - 1)):.2g}")
    return f"{text}: they look like those of theta {theta:,.0f}, the model's is {expected:,.0f}"
