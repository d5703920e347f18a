"""Attention as one op: queries, and the keys and values that they see, whole, cached or in pages.

Its kernel yields the context alone. What it sees is followed by the tags of the rows: of pages by
the block tables and lengths that the call is given, so that a sequence's keys come back in the
order of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from goldenctl.trace.args import named, number, outputs, scalar
from goldenctl.trace.attention import Heads, alike, check_scale
from goldenctl.trace.calls import Arg, Call
from goldenctl.trace.memory import Tags
from goldenctl.trace.norms import moved
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Ints, Place


def fused(tracing: Tracing, call: Call) -> None:
    """Queries, keys and values, or their caches, to the context."""
    out, *others = outputs(call)
    for arg in others:  # the logarithms of sums, and caches, which are known by their bytes
        tracing.forget(arg)
    q = _exactly(call, "q")
    keys, values = (_seen(tracing, call, letter) for letter in "kv")
    tags = None if q is None else tracing.tags(q)
    found = [] if tags is None else tracing.values.found(tags)
    scores = tracing.choose("matmul_qk", [p for p in found if p is not None])
    if scores is None or q is None or tags is None or not keys or not values:
        tracing.not_explained(call)
        tracing.forget(out)
        return
    probs, context = (Place(scores.case, scores.sublayer, tap) for tap in ("probs", "context"))
    tracing.fused |= {scores, probs}
    tracing.done |= {scores, probs}
    tracing.check_input(scores, 0, found)
    for place, seen in ((scores, keys), (context, values)):
        _check(tracing, place, Heads.of(tracing, tags), seen)
    if "scale" in call.scalars:
        check_scale(tracing, scores, number(call, 1.0, "scale"))
    _check_causal(tracing, call, context)
    if call.op == "Attention":  # q is [heads, tokens, D], the context [tokens, heads, D]
        tags = tags.swapaxes(0, 1)
    tracing.yields(call, out, moved(tracing, context, tags.reshape(out.shape), q))


def _exactly(call: Call, name: str) -> Arg | None:
    return next((arg for arg in call.args if arg.pointer and arg.name == name), None)


def _seen(tracing: Tracing, call: Call, letter: str) -> list[Tags]:
    """Return the keys or values that each sequence sees, [slots, heads, D] in the order of its
    tokens; of all sequences together, [rows, D], where no page tells them apart."""
    cache, own = _exactly(call, f"{letter}_cache"), _exactly(call, letter)
    tables, lengths = named(call, "block_table"), named(call, "kv_len", "seq_len", "seqlens_k")
    if cache is not None and own is not None and "pos" in call.scalars:
        past = tracing.tags(cache)[:, : int(number(call, 0, "pos"))]
        return [_rows(np.concatenate([past, tracing.tags(own)], axis=1))]
    arg = cache or own
    if arg is None:
        return []
    held = (each is not None and tracing.calls.holds(each.before) for each in (tables, lengths))
    if tables is not None and lengths is not None and len(arg.shape) == 4 and all(held):
        counts = tracing.calls.before(lengths).astype(np.int64).reshape(-1)
        return _pages(tracing, arg, tracing.calls.before(tables).astype(np.int64), counts)
    return [_rows(tracing.tags(arg))]


def _rows(tags: Tags) -> Tags:
    return tags.reshape(-1, tags.shape[-1])


def _pages(tracing: Tracing, cache: Arg, tables: Ints, counts: Ints) -> list[Tags]:
    """Return what each sequence's blocks hold; ``cache`` is [blocks, heads, slots, D] or
    [blocks, slots, heads, D]."""
    tags = tracing.tags(cache)
    head = Heads.of(tracing, tags).head  # [blocks, _, _]
    if ((head < 0) | (head == np.arange(head.shape[1])[:, None])).all():
        tags = tags.swapaxes(1, 2)
    size = tags.shape[1]
    if len(counts) == len(tables) + 1:  # where each sequence begins and the last one ends
        counts = np.diff(counts)
    return [
        tags[table[: -(-int(count) // size)]].reshape(-1, *tags.shape[2:])[: int(count)]
        for table, count in zip(tables, counts, strict=False)
    ]


def _check(tracing: Tracing, place: Place, queries: Heads, seen: Sequence[Tags]) -> None:
    """Hold what queries see against what the model has them see."""
    source = tracing.flow.nodes[place].inputs[1]
    known = [p for tags in seen for p in tracing.values.found(tags) if p is not None]
    if not tracing.check_input(place, 1, list(dict.fromkeys(known))):
        return
    rows, first = np.unique(queries.row[queries.row >= 0], return_index=True)
    rows = rows[np.argsort(first)]
    for number_, row in enumerate(rows):
        mine = seen[number_] if len(seen) == len(rows) else seen[0]
        heads = Heads.of(tracing, mine)
        last = int(queries.token[queries.row == row].max())
        text = _difference(tracing, source, heads, int(row), last)
        if text:
            tracing.unjudge(Place(place.case, place.sublayer, "context"))
            tracing.find(place, "mask" if text.startswith("sees") else "cache", text)
            return


def _difference(tracing: Tracing, source: Place, heads: Heads, row: int, last: int) -> str:
    """Say what the queries of a batch's row see otherwise than its tokens up to the last one."""
    tokens_of = tracing.now.tokens_of
    assert tokens_of is not None
    what = "key" if source.tap.startswith("k") else "value"
    wanted = np.flatnonzero(tokens_of.visible[row, : last + 1])
    if heads.token.ndim < 2:  # rows of any order
        held = np.unique(heads.token[heads.row == row])
        absent = np.setdiff1d(wanted, held).tolist()
        lacking = [t for t in absent if not _comes_again(tracing, source, row, t, held)]
        return (
            f"the {what} of token {lacking[0]} is not among those that it sees" if lacking else ""
        )
    count = len(heads.token)
    if count == last + 1:
        wanted = np.arange(last + 1)  # padding is in the cache, too
    if count != len(wanted):
        return f"sees {count} {what}s, expected {len(wanted)}"
    order = np.broadcast_to(wanted[:, None], heads.token.shape)
    right = (heads.token == order) | alike(tracing, source, heads, order)
    wrong = ~(right & (heads.row == row)) & tokens_of.visible[row, order]
    if not wrong.any():
        return ""
    slot, head = np.argwhere(wrong)[0]
    held_token, held_row = int(heads.token[slot, head]), int(heads.row[slot, head])
    if held_token < 0:
        return f"slot {slot} of the cache of {what}s holds what was never written"
    of_row = f" of row {held_row}" if held_row != row else ""
    return f"slot {slot} of the cache holds the {what} of token {held_token}{of_row}"


def _comes_again(tracing: Tracing, source: Place, row: int, token: int, held: Ints) -> bool:
    """Whether another token's row, which is there, has the same bytes in all heads."""
    there = held[held >= 0]
    count = tracing.values.shape(tracing.number(source))[2]
    shape = (len(there), count)
    heads = Heads(
        np.full(shape, row),
        np.broadcast_to(there[:, None], shape),
        np.broadcast_to(np.arange(count), shape),
    )
    return bool(alike(tracing, source, heads, np.full(shape, token)).all(-1).any())


def _check_causal(tracing: Tracing, call: Call, place: Place) -> None:
    """A kernel that is asked for no mask has tokens see later ones, where there are any."""
    mask = named(call, "mask")
    asked = scalar(call, "is_causal", "causal", "mask_type")
    unmasked = asked in (0, False) or str(asked).endswith("MASK_TYPE_NONE")
    pass_ = tracing.now
    several = any((pass_.rows == row).sum() > 1 for row in np.unique(pass_.rows))
    if asked is not None and unmasked and mask is None and several:
        tracing.find(place, "mask", "attention is not asked to be causal")
