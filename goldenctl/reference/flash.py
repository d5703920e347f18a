"""Fused attention as real kernels make it: correct alternatives to three ops in a row.

Each computes ``context`` [B, S, H, D] from queries [B, S, H, D] and keys and values
[B, T, K, D]; row i sees the columns that ``kernels.visible`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from goldenctl.reference.faulty import Call
from goldenctl.reference.kernels import repeat_kv, visible
from goldenctl.reference.rounding import wide

_BLOCK = 8  # keys at a time: small, so that short inputs have several
Fused = Callable[[Call], Tensor]


def only_fused(fused: Fused) -> Callable[[Call], Tensor | None]:
    """Return what computes the fused op alone; any other is computed as it always is."""
    return lambda call: fused(call) if call.kind == "sdpa" else None


def _scores(call: Call) -> tuple[Tensor, Tensor]:
    """Return masked scores [B, H, S, T] and values [B, H, T, D] in the wide type."""
    q, k, v = (x.to(wide(x.dtype)).transpose(1, 2) for x in call.inputs)
    heads = q.shape[1]
    scores = q @ repeat_kv(k, heads).transpose(2, 3) * call.attrs["scale"]
    seen = visible(call.attrs, scores, ())
    return scores.masked_fill(~seen, -torch.inf), repeat_kv(v, heads)


def _done(call: Call, context: Tensor) -> Tensor:
    return context.transpose(1, 2).to(call.inputs[0].dtype)


def _online(call: Call, *, round_scores: bool, round_probs: bool) -> Tensor:
    """Softmax in blocks of keys, with a running maximum and sum: p is not yet divided when it
    meets the values; accumulators are wide."""
    scores, v = _scores(call)
    stored = call.inputs[0].dtype
    if round_scores:
        scores = scores.to(stored).to(scores.dtype)
    # No key of a block may be in a row's window: its maximum stays finite.
    top = torch.full_like(scores[..., :1], torch.finfo(scores.dtype).min)
    total = torch.zeros_like(top)
    context = torch.zeros_like(v[..., :1, :]).expand(*scores.shape[:-1], v.shape[-1])
    for start in range(0, scores.shape[-1], _BLOCK):
        block = scores[..., start : start + _BLOCK]
        higher = top.maximum(block.amax(-1, keepdim=True))
        p, scale = torch.exp(block - higher), torch.exp(top - higher)
        total = total * scale + p.sum(-1, keepdim=True)
        if round_probs:
            p = p.to(stored).to(v.dtype)
        context = context * scale + p @ v[..., start : start + _BLOCK, :]
        top = higher
    return _done(call, context / total)


def _divided_last(call: Call) -> Tensor:
    """The whole row at once, p in the wide type, the product divided by its sum."""
    scores, v = _scores(call)
    p = torch.exp(scores - scores.amax(-1, keepdim=True))
    return _done(call, p @ v / p.sum(-1, keepdim=True))


def _wide_probs(call: Call) -> Tensor:
    """Softmax and the product of its result in the wide type: nothing is rounded between."""
    scores, v = _scores(call)
    return _done(call, torch.softmax(scores, -1) @ v)


def _rounded_between(call: Call) -> Tensor:
    """Scores wide, the probabilities rounded before the product: one rounding less than
    three ops."""
    scores, v = _scores(call)
    probs = torch.softmax(scores, -1).to(call.inputs[0].dtype)
    return _done(call, probs.to(v.dtype) @ v)


def _sdpa(call: Call) -> Tensor:
    """PyTorch's own kernel in the recorded type."""
    q, k, v = (x.transpose(1, 2) for x in call.inputs)
    seen = visible(call.attrs, q.new_empty(q.shape[2], k.shape[2]), ())
    scale = call.attrs["scale"]
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, scale=scale, enable_gqa=grouped
    ).transpose(1, 2)


FUSED: dict[str, Fused] = {
    "fused: torch's sdpa": _sdpa,
    "fused: online softmax": partial(_online, round_scores=False, round_probs=False),
    "fused: online softmax, probs rounded": partial(_online, round_scores=False, round_probs=True),
    "fused: online softmax, scores and probs rounded": partial(
        _online, round_scores=True, round_probs=True
    ),
    "fused: divided after the product": _divided_last,
    "fused: probs in float32": _wide_probs,
    "fused: probs rounded": _rounded_between,
}
