"""Attention among the calls: scores, softmax and context over keys and values of any layout.

fused.py has attention as one op.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.trace.args import inputs, outputs
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import UNKNOWN, Tags
from goldenctl.trace.norms import moved
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Ints, Place, flats_of, numbers_of, tag_of

_CLOSE = 1e-3  # of a scale that went through float32


@dataclass(frozen=True)
class Heads:
    """Rows of queries, keys or values: which batch row, token and head each is; -1 unknown."""

    row: Ints
    token: Ints
    head: Ints

    @staticmethod
    def of(tracing: Tracing, tags: Tags) -> Heads:
        """Read them of tags [..., head_dim] of values [B, tokens, heads, head_dim]."""
        first = tags[..., 0]
        numbers, flats = numbers_of(first), flats_of(first)
        found = [np.full(first.shape, -1, np.int64) for _ in range(3)]
        for source in np.unique(numbers[numbers >= 0]):
            if len(tracing.values.shape(int(source))) == 4:
                mine = numbers == source
                index = tracing.values.index(int(source), flats[mine])
                for kept, each in zip(found, index, strict=False):
                    kept[mine] = each
        return Heads(*found)

    def at(self, order: Ints) -> Heads:
        return Heads(self.row, order, self.head)


def scores(
    tracing: Tracing, call: Call, operands: tuple[Tags, Tags], out: Arg, *, scale: float
) -> None:
    """Name a product of queries [n, R, D] and keys [n, C, D]."""
    left, right = operands
    taps = {p.tap for p in tracing.values.found(left) if p is not None}
    if taps and all(tap[0] == "k" for tap in taps):
        left, right, out = right, left, _transposed(out)
    sources = [p for x in (left, right) for p in tracing.values.found(x) if p is not None]
    place = tracing.choose("matmul_qk", sources)
    if place is None:
        tracing.not_explained(call)
        tracing.forget(out)
        return
    q_right = tracing.check_input(place, 0, tracing.values.found(left))
    k_right = tracing.check_input(place, 1, tracing.values.found(right))
    check_scale(tracing, place, scale)
    queries, keys = Heads.of(tracing, left), Heads.of(tracing, right)
    if k_right:
        _check_keys(tracing, place, queries, keys)
    keys = keys.at(_in_order(keys.token))
    if q_right and k_right:
        _check_pairs(tracing, place, queries.head, keys.head)
    shape = tracing.values.shape(tracing.number(place))
    first = (queries.row * shape[1] + queries.head) * shape[2] + queries.token
    flats = first[:, :, None] * shape[3] + keys.token[:, None, :]
    whole = (queries.row[:, :, None] >= 0) & (keys.token[:, None, :] >= 0)
    tags = np.where(whole, tag_of(tracing.number(place), flats), UNKNOWN)
    tracing.yields(call, out, tags.reshape(out.shape))


def context(tracing: Tracing, call: Call, operands: tuple[Tags, Tags], out: Arg) -> None:
    """Name a product of probabilities [n, R, C] and values [n, C, D]."""
    left, right = operands
    sources = [p for x in (left, right) for p in tracing.values.found(x) if p is not None]
    place = tracing.choose("matmul_pv", sources)
    if place is None:
        tracing.not_explained(call)
        tracing.forget(out)
        return
    tracing.check_input(place, 0, tracing.values.found(left))
    right_ones = tracing.check_input(place, 1, tracing.values.found(right))
    row, head, token, columns = _of_probs(tracing, left)
    values = Heads.of(tracing, right)
    if right_ones:
        _check_values(tracing, place, columns, values)
        _check_pairs(tracing, place, head, values.head)
    shape = tracing.values.shape(tracing.number(place))
    first = (row * shape[1] + token) * shape[2] + head
    flats = first[:, :, None] * shape[3] + np.arange(right.shape[-1])
    tags = np.where(row[:, :, None] >= 0, tag_of(tracing.number(place), flats), UNKNOWN)
    tracing.yields(call, out, tags.reshape(out.shape))


def softmax(tracing: Tracing, call: Call) -> None:
    """``y, x``: causal or over all keys that are there."""
    (y, *_) = outputs(call)
    x = next(iter(inputs(call)), y)
    tags = tracing.tags(x)
    found = tracing.values.found(tags)
    place = tracing.choose("causal_softmax", [p for p in found if p is not None])
    if place is None:
        tracing.not_explained(call)
        tracing.forget(y)
        return
    tracing.check_input(place, 0, found)
    result = moved(tracing, place, tags, x)
    if tracing.calls.holds(y.after):
        _check_mask(tracing, place, result, tracing.calls.after(y))
    tracing.yields(call, y, result)


def check_scale(tracing: Tracing, place: Place, scale: float) -> None:
    expected = float(tracing.flow.nodes[place].op.attrs["scale"])
    if abs(scale - expected) > _CLOSE * expected:
        text = f"scores are multiplied by {scale:.6g}, expected {expected:.6g}"
        tracing.find(place, "scalar", f"{text}, 1 / sqrt(head_dim)")


def _check_keys(tracing: Tracing, place: Place, queries: Heads, keys: Heads) -> None:
    """Every token up to the pass's last must be among the keys, once, in the slot of its order."""
    tokens = tracing.now
    last = int(tokens.tokens.max()) if len(tokens.tokens) else -1
    columns = keys.token.shape[1]
    if columns <= last:
        text = f"scores see {columns} of {last + 1} keys"
        tracing.unjudge(place)
        tracing.find(place, "mask", text)
        return
    assert tokens.tokens_of is not None
    for row in np.unique(queries.row[queries.row >= 0]):
        seen = keys.token[(queries.row == row).any(1)][:1].reshape(-1)
        wanted = np.flatnonzero(tokens.tokens_of.visible[row, : last + 1])
        lacking = np.setdiff1d(wanted, seen)
        if len(lacking):
            slot = int(lacking[0])
            held = int(seen[slot]) if slot < len(seen) else -1
            what = f"the key of token {held}" if held >= 0 else "what was never written"
            tracing.unjudge(place)
            tracing.find(place, "cache", f"slot {slot} of the cache holds {what}")
            return


def _check_values(tracing: Tracing, place: Place, columns: Ints, values: Heads) -> None:
    """Each probability must meet the value of its own key's token."""
    wrong = (columns != values.token) & (columns >= 0)
    wrong &= ~alike(tracing, tracing.flow.nodes[place].inputs[1], values, columns)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        held = int(values.token[at])
        what = f"the value of token {held}" if held >= 0 else "what was never written"
        tracing.unjudge(place)
        tracing.find(place, "cache", f"slot {int(columns[at])} of the cache of values holds {what}")


def alike(tracing: Tracing, place: Place, heads: Heads, tokens: Ints) -> NDArray[np.bool_]:
    """Say of which heads' rows other tokens' have the same bytes, as values of the first layer
    have wherever a token id comes again."""
    picture = tracing.canvas.pictures.get(place)
    known = (heads.row >= 0) & (heads.token >= 0) & (tokens >= 0)
    if picture is None or not known.any():
        return np.zeros(known.shape, np.bool_)
    row, head = (np.where(known, index, 0) for index in (heads.row, heads.head))
    mine, others = (
        picture.data[row, np.where(known, token, 0), head] for token in (heads.token, tokens)
    )
    return np.asarray(known & (mine == others).all(-1))


def _check_pairs(tracing: Tracing, place: Place, heads: Ints, kv_heads: Ints) -> None:
    """Query head h reads key head h // group."""
    config = tracing.flow.config
    group = config.num_attention_heads // config.num_key_value_heads
    expected = np.where(heads[:, :, None] >= 0, heads[:, :, None] // group, -1)
    wrong = (expected != kv_heads[:, None, :]) & (expected >= 0) & (kv_heads[:, None, :] >= 0)
    if wrong.any():
        n, row, column = np.argwhere(wrong)[0]
        text = (
            f"query head {int(heads[n, row])} reads key head {int(kv_heads[n, column])}, "
            f"expected {int(expected[n, row, 0])}"
        )
        tracing.unjudge(place)
        tracing.find(place, "heads", text)


def _check_mask(tracing: Tracing, place: Place, tags: Tags, after: NDArray[np.generic]) -> None:
    """No probability of a later token, or of padding, may be other than 0."""
    known = tags >= 0
    if not known.any():
        return
    number_ = tracing.number(place)
    mine = known & (numbers_of(tags) == number_)
    row, _, token, key = tracing.values.index(number_, flats_of(tags[mine]))
    assert tracing.now.tokens_of is not None
    visible = tracing.now.tokens_of.visible
    seen = (after[mine].astype(np.float32) != 0) & visible[row, token]
    for wrong, why in ((key > token, "comes later"), (~visible[row, key], "is padding")):
        if (seen & wrong).any():
            at = int(np.flatnonzero(seen & wrong)[0])
            text = f"token {int(token[at])} sees the key of token {int(key[at])}, which {why}"
            tracing.find(place, "mask", text)


def _of_probs(tracing: Tracing, tags: Tags) -> tuple[Ints, Ints, Ints, Ints]:
    """Return batch row, head and token of each row [n, R], and the token of each column [n, C]."""
    numbers, flats = numbers_of(tags), flats_of(tags)
    found = [np.full(tags.shape, -1, np.int64) for _ in range(4)]
    for source in np.unique(numbers[numbers >= 0]):
        mine = numbers == source
        index = tracing.values.index(int(source), flats[mine])
        for kept, each in zip(found, index, strict=False):
            kept[mine] = each
    row, head, token, key = found
    return row.max(2), head.max(2), token.max(2), key.max(1)


def _in_order(tokens: Ints) -> Ints:
    """Return the token of each column [n, C]; its place where not all of them are known."""
    order = np.arange(tokens.shape[1])
    result = tokens.copy()
    for n, each in enumerate(tokens):
        if (each < 0).any() or len(np.unique(each)) < len(each):
            result[n] = order
    return result


def _transposed(arg: Arg) -> Arg:
    shape, strides = list(arg.shape), list(arg.strides)
    shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
    return msgspec.structs.replace(arg, shape=tuple(shape), strides=tuple(strides))
