"""The ops: what each is, how far a correct one may err, and the launches that compute it.

``OPS`` has a record for each op of the graph, ``LAUNCHES`` one for each op of a plan
(docs/plan-protocol.md). The kernels are in ``goldenctl.reference.kernels``, an engine's own in
``goldenctl/harness/ops.cpp``, the mistakes that ports make in ``goldenctl.ops.faults``.

Shapes: B batch, S token, T key token, H query heads, K key/value heads, G = H / K, D
head_dim, N rows, M columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from goldenctl.ops.plan import Lowering, PlanOp, View

Views = tuple[View, ...]
Attrs = Mapping[str, Any]


def _embedding(tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs) -> list[PlanOp]:
    (ids,), (table,) = inputs, weights
    count, rows = math.prod(ids.shape), _rows(out)
    gather = PlanOp("gather", tap, rows, (table, ids.reshape(count)))
    if "scale" not in attrs:
        return [gather]
    return [gather, PlanOp("scale", tap, rows, (rows,), alpha=attrs["scale"])]


# What a plan calls the norms that round once, or multiply by 1 + w.
_NORM_FORMS = {None: "rms_norm", "once": "rms_norm_once", "plus_one": "rms_norm_plus_one"}


def _rms_norm(tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs) -> list[PlanOp]:
    (x,), (weight,) = inputs, weights
    heads = len(x.shape) == 4
    flat = (_linear_rows if attrs.get("merged") else _tokens) if heads else _rows
    kind = _NORM_FORMS[attrs.get("form")]
    return [PlanOp(kind, tap, flat(out), (flat(x), weight), epsilon=attrs["epsilon"])]


def _linear(tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs) -> list[PlanOp]:
    (x,), (weight, *bias) = inputs, weights
    x = x.take(1, x.shape[1] - 1) if attrs.get("last_token") else _linear_rows(x)
    out = out.reshape(x.shape[0], weight.shape[0])
    matrix = weight if attrs.get("transposed") else weight.permute(1, 0)
    gemm = PlanOp("gemm", tap, out, (x, matrix), alpha=1.0, beta=float(len(bias)))
    copies = [PlanOp("rearrange", tap, out, (b.expand(0, x.shape[0]),)) for b in bias]
    return [*copies, gemm]


def _rope(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    x, positions, sin, cos = inputs
    x, out, rotary = _tokens(x), _tokens(out), 2 * sin.shape[1]
    tables = (positions.reshape(math.prod(positions.shape)), sin, cos)
    turned = (x.head(2, rotary), *tables)
    rope = PlanOp("rope", tap, out.head(2, rotary), turned, algo=attrs["algo"])
    kept = x.shape[2] - rotary
    if not kept:
        return [rope]
    return [PlanOp("rearrange", tap, out.tail(2, kept), (x.tail(2, kept),)), rope]


def _matmul_qk(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    q, k = inputs  # [B, S, H, D], [B, T, K, D]
    kv_heads = k.shape[2]
    a = q.permute(0, 2, 1, 3).split(1, kv_heads)  # [B, K, G, S, D]
    b = k.permute(0, 2, 3, 1).expand(2, a.shape[2])  # [B, K, G, D, T]
    c = out.split(1, kv_heads)  # [B, K, G, S, T]
    return [PlanOp("gemm", tap, c, (a, b), alpha=attrs["scale"], beta=0.0)]


def _causal_softmax(
    tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs
) -> list[PlanOp]:
    scores, *masks = inputs  # [B, H, S, T]
    batch, heads, token, key_token = scores.shape
    added = []  # what is added to hide keys, [B, H, S, T]
    if attrs.get("window"):  # the mask of the window, [S, T], comes last
        added.append(masks.pop().expand(0, heads).expand(0, batch))
    added += [padding.expand(1, token).expand(1, heads) for padding in masks]  # [B, T]
    adds = []
    for mask in added:
        adds.append(PlanOp("add", tap, out, (scores, mask)))
        scores = out
    shape = (batch * heads, token, key_token)
    softmax = PlanOp("causal_softmax", tap, out.reshape(*shape), (scores.reshape(*shape),))
    return [*adds, softmax]


def _matmul_pv(tap: str, out: View, inputs: Views, _weights: Views, _attrs: Attrs) -> list[PlanOp]:
    probs, v = inputs  # [B, H, S, T], [B, T, K, D]
    kv_heads = v.shape[2]
    a = probs.split(1, kv_heads)  # [B, K, G, S, T]
    b = v.permute(0, 2, 1, 3).expand(2, a.shape[2])  # [B, K, G, T, D]
    c = out.permute(0, 2, 1, 3).split(1, kv_heads)  # [B, K, G, S, D]
    return [PlanOp("gemm", tap, c, (a, b), alpha=1.0, beta=0.0)]


def _sdpa(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    q, k, v = (x.permute(0, 2, 1, 3) for x in inputs)  # [B, heads, tokens, D]
    return [PlanOp("sdpa", tap, out.permute(0, 2, 1, 3), (q, k, v), alpha=attrs["scale"])]


def _route(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    rule = {"choices": attrs["choices"], "renormalise": attrs["renormalise"]}
    return [PlanOp("route", tap, _rows(out), (_rows(inputs[0]),), **rule)]


def _expert_linear(
    tap: str, out: View, inputs: Views, weights: Views, attrs: Attrs
) -> list[PlanOp]:
    x, routing = inputs  # [B, S, M] or [B, S, k, M], [B, S, E]
    (matrices,), choices = weights, attrs["choices"]  # [E, N, M]
    slots = _tokens(x) if len(x.shape) == 4 else _rows(x).expand(1, choices)
    args = (slots, _rows(routing), matrices)
    return [PlanOp("expert_linear", tap, _tokens(out), args, choices=choices)]


def _expert_sum(tap: str, out: View, inputs: Views, _weights: Views, attrs: Attrs) -> list[PlanOp]:
    yielded, routing = inputs
    args = (_tokens(yielded), _rows(routing))
    return [PlanOp("expert_sum", tap, _rows(out), args, choices=attrs["choices"])]


def _elementwise(kind: str) -> Lowering:
    def lower(tap: str, out: View, inputs: Views, _weights: Views, _attrs: Attrs) -> list[PlanOp]:
        return [PlanOp(kind, tap, _rows(out), tuple(_rows(x) for x in inputs))]

    return lower


def _rows(view: View) -> View:
    """[..., M] -> [N, M]."""
    return view.reshape(math.prod(view.shape[:-1]), view.shape[-1])


def _tokens(view: View) -> View:
    """[B, S, heads, D] -> [B * S, heads, D]."""
    return view.reshape(view.shape[0] * view.shape[1], *view.shape[2:])


def _linear_rows(view: View) -> View:
    """[B, S, ...] -> [B * S, M]: a linear's input, its heads merged."""
    return view.reshape(view.shape[0] * view.shape[1], math.prod(view.shape[2:]))


@dataclass(frozen=True)
class Launch:
    """An op of a plan: so many ``args``, the last ``weights`` of which are weights.

    ``parameters`` are the numbers and choices that it takes. ``test`` is what infiniop-test
    calls the arguments and the output, where it tests this op. ``infinicore`` is whether
    InfiniCore has it.
    """

    args: int
    parameters: tuple[str, ...] = ()
    weights: int = 0
    test: tuple[tuple[str, ...], str] | None = None
    infinicore: bool = True


LAUNCHES: dict[str, Launch] = {
    "gather": Launch(2),
    "rms_norm": Launch(2, ("epsilon",), weights=1, test=(("x", "w"), "y")),
    "rms_norm_once": Launch(2, ("epsilon",), weights=1),
    "rms_norm_plus_one": Launch(2, ("epsilon",), weights=1, infinicore=False),
    "scale": Launch(1, ("alpha",), infinicore=False),
    "gemm": Launch(2, ("alpha", "beta"), test=(("a", "b"), "c")),
    "rope": Launch(4, ("algo",), test=(("x", "pos_ids", "sin_table", "cos_table"), "y")),
    "causal_softmax": Launch(1, test=(("x",), "y")),
    "swiglu": Launch(2, test=(("a", "b"), "c")),
    "geglu": Launch(2, infinicore=False),
    "route": Launch(1, ("choices", "renormalise"), infinicore=False),
    "expert_linear": Launch(3, ("choices",), weights=1, infinicore=False),
    "expert_sum": Launch(2, ("choices",), infinicore=False),
    "add": Launch(2, test=(("a", "b"), "c")),
    "rearrange": Launch(1),
    "sdpa": Launch(3, ("alpha",), infinicore=False),
}


@dataclass(frozen=True)
class Kind:
    """An op of the graph. ``lower`` makes its launches.

    ``epsilons`` is the relative L2 error that the tolerance table allows, in epsilons of the
    dtype: what correct kernels measured in sublayer replay, where errors of the ops before are
    inherited, times about two; 0 means equal bits. ``roundings`` is how often a correct
    implementation may round to the stored type on the way. An op of ``row_errors`` divides a
    row by one sum, whose error the whole row has.
    """

    lower: Lowering
    epsilons: float
    roundings: int = 1
    row_errors: bool = False


OPS: dict[str, Kind] = {
    "embedding": Kind(_embedding, 0.0),
    # before and after the norm's weight
    "rms_norm": Kind(_rms_norm, 2.0, roundings=2, row_errors=True),
    "linear": Kind(_linear, 4.0),
    "rope": Kind(_rope, 2.0),
    "matmul_qk": Kind(_matmul_qk, 3.0, roundings=2),  # the product, and its scale
    # the exponentials, and the division
    "causal_softmax": Kind(_causal_softmax, 4.0, roundings=2, row_errors=True),
    "matmul_pv": Kind(_matmul_pv, 4.0),
    "sdpa": Kind(_sdpa, 4.0),
    "swiglu": Kind(_elementwise("swiglu"), 3.0, roundings=2),  # the activation, and the product
    "geglu": Kind(_elementwise("geglu"), 3.0, roundings=2),  # as swiglu
    "route": Kind(_route, 4.0, roundings=2, row_errors=True),  # the probabilities, their division
    "expert_linear": Kind(_expert_linear, 4.0),
    "expert_sum": Kind(_expert_sum, 6.0),
    "add": Kind(_elementwise("add"), 4.0),
    "copy": Kind(_elementwise("rearrange"), 0.0),  # what is left where an op is missing
}

# The ops that the reference computes one by one.
ELEMENTARY = tuple(name for name in OPS if name not in ("sdpa", "copy"))
