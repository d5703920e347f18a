"""One sublayer of one step: the truth of each op, and beside it the moves of all passes.

``moves`` are ``[2 * (1 + TWINS), B, ...]``, the passes of scope sublayer and those of scope chain:
how far a truth and its twins are from the *base* of a tensor. The base is what was recorded, as a
replay in the budget's dtype reads it; where that is not finite it is the op's own truth, which
may be, since float16 scores overflow in PyTorch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from goldenctl.model.graph import (
    FUSED_OP,
    TABLE_DIMS,
    Op,
    Sublayer,
    is_table,
    own_name,
    with_past,
)
from goldenctl.reference.forward import apply
from goldenctl.reference.fused import fused_budget, fused_ops
from goldenctl.reference.kernels import noise_of
from goldenctl.reference.response import respond
from goldenctl.reference.rounding import Unit
from goldenctl.reference.spans import Span, parts, sees_all, spans, whole_input
from goldenctl.reference.twins import PASSES, Draws, add_noise, own_budget, twin_budget
from goldenctl.reference.watch import is_finite

SCOPES = 2  # whose truths are carried as moves
Tensors = dict[str, Tensor]
# Return the chain's moves [1 + TWINS, B, T, ...] of keys or values of all steps so far, from
# their tap's name and those of this step.
Join = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Types:
    """Of the results that a budget is for, of their truth, and, with the draws, of moves."""

    unit: Unit
    narrow: torch.dtype
    wide: torch.dtype
    draws: Draws

    def widened(self, value: Tensor) -> Tensor:
        return value.to(self.wide) if value.is_floating_point() else value

    def rounded(self, value: Tensor) -> Tensor:
        """What a replay in the budget's dtype makes of a recorded tensor, in the wide type."""
        return self.widened(value.to(self.narrow) if value.is_floating_point() else value)

    def light(self, value: Tensor) -> Tensor:
        return value.to(self.draws.dtype) if value.is_floating_point() else value


@dataclass(frozen=True)
class Weights:
    """A sublayer's weights by name: in the wide type, in that of products of moves, and the
    latter's squares."""

    wide: Mapping[str, Tensor]
    light: Mapping[str, Tensor]
    squares: Mapping[str, Tensor]


@dataclass(frozen=True)
class Value:
    """A tensor's base, in the wide type and in that of moves, and its moves; None where it
    does not move."""

    base: Tensor
    light: Tensor
    moves: Tensor | None


@dataclass
class Found:
    """By tap: budgets ``[scope, ..., 4]`` in float32, truths ``[scope, *shape]`` if they are
    kept, the budget of a fused kernel; and the chain's moves of the output,
    ``[1 + TWINS, B, S, M]``."""

    budgets: Tensors = field(default_factory=dict)
    truths: Tensors = field(default_factory=dict)
    fused: Tensors = field(default_factory=dict)
    chain: Tensor | None = None


class Carried:
    """Finds out what there is to know of a sublayer.

    ``recorded`` are its tensors, its input and constants among them; ``chain`` are the moves of
    its input in scope chain.
    """

    def __init__(
        self,
        sublayer: Sublayer,
        recorded: Mapping[str, Tensor],
        weights: Weights,
        types: Types,
        chain: Tensor,
    ) -> None:
        self._sublayer = sublayer
        self._recorded = recorded
        self._weights = weights
        self._types = types
        self._chain = chain
        read = {name for op in sublayer.ops for name in (*op.inputs, op.output)}
        self._finite = all(is_finite(recorded[n]) for n in read if recorded[n].is_floating_point())
        self._whole: dict[str, Value] = {}  # of all tokens
        self._moves: Tensors = {}  # of all tokens, of what is read after the part that made it
        self._found = Found()

    def run(self, join: Join, *, keep: bool, fused: bool) -> Found:
        """``keep`` the truths too; ``fused`` asks for the budget of a fused attention kernel."""
        tokens, rest = self._recorded["input"].shape[1], list(self._sublayer.ops)
        for ops in parts(self._sublayer):
            rest = rest[len(ops) :]
            numbers = max(self._recorded[op.output].numel() for op in ops) // tokens
            # A row that sees nothing but padding depends on how many tokens there are.
            alone = not self._finite or any("attention_mask" in op.inputs for op in ops)
            for span in spans(tokens, self._past(), SCOPES * PASSES * numbers, alone=alone):
                near = self._whole if alone else {}
                for op in ops:
                    self._op(op, span, near, keep=keep)
                    if fused and op.kind == FUSED_OP:
                        self._fused(span, near)
                self._keep(ops, rest, span, near)
            for name in {whole_input(op) for op in rest} & {op.output for op in ops}:
                self._join(name, join)
        if "output" in self._moves:
            self._found.chain = self._rebased("output")
        return self._found

    def _past(self) -> int:
        """How many tokens of earlier steps there are keys and values of."""
        names = {with_past(whole_input(op)) for op in self._sublayer.ops} & set(self._recorded)
        tokens = self._recorded["input"].shape[1]
        return max((self._recorded[name].shape[1] - tokens for name in names), default=0)

    def _op(self, op: Op, span: Span, near: dict[str, Value], *, keep: bool) -> None:
        """Compute an op of a span and note its budgets."""
        types = self._types
        read = {name: self._read(op, name, span, near) for name in op.inputs}
        base = {name: value.base for name, value in read.items()}
        light = {name: value.light for name, value in read.items()}
        truth = apply(op, base, self._weights.wide)
        recorded = self._recorded_part(op, span)
        based, recorded = types.rounded(recorded), types.widened(recorded)
        if not self._finite:
            based = torch.where(based.isfinite(), based, truth)
        result = types.light(truth)
        noise = noise_of(op, types.unit, light, self._weights.squares, result)
        weights = tuple(self._weights.light[name] for name in op.weights)
        moves = tuple(value.moves for value in read.values())
        moved = respond(op, tuple(light.values()), moves, weights, result)
        moved += types.light(truth - based)
        scopes = torch.unflatten(moved, 0, (SCOPES, PASSES))
        add_noise(scopes[:, 1:], noise, types.draws)
        near[op.output] = Value(based, types.light(based), moved)

        own = own_budget(types.light(recorded - truth), noise.sigma)
        gap = types.light(recorded - based)
        budgets = [twin_budget(gap - each[0], each[1:] - each[0], own) for each in scopes]
        self._note(self._found.budgets, op, span, torch.stack([own, *budgets]).float())
        if keep:
            truths = torch.stack([truth, *(based + each[0] for each in scopes)])
            self._note(self._found.truths, op, span, truths)

    def _fused(self, span: Span, near: dict[str, Value]) -> None:
        """Note the budget of a kernel that makes scores, probs and context of a span at once."""
        ops = fused_ops(self._sublayer)
        made = {op.output for op in ops}
        given = {
            name: span.seen(value.base, self._read_dims(op, name))
            for op in ops
            for name in op.inputs
            if name not in made and (value := self._read(op, name, span, near))
        }
        types, recorded = self._types, self._recorded_part(ops[-1], span)
        args = (given, types.widened(recorded), types.draws.dtype)
        budget = fused_budget(self._sublayer, types.unit, *args)
        self._note(self._found.fused, ops[-1], span, budget)

    def _recorded_part(self, op: Op, span: Span) -> Tensor:
        dims = self._sublayer.dims(op.output)
        recorded = span.tokens(self._recorded[op.output], dims)
        return recorded if sees_all(self._sublayer, op) else span.seen(recorded, dims)

    def _read_dims(self, op: Op, name: str) -> tuple[str, ...]:
        """Return the dims of an input as the op reads it, keys and values by key token."""
        if is_table(name):
            return TABLE_DIMS
        dims = self._sublayer.dims(own_name(name))
        if own_name(name) != whole_input(op):
            return dims
        return tuple("key_token" if dim == "token" else dim for dim in dims)

    def _read(self, op: Op, name: str, span: Span, near: dict[str, Value]) -> Value:
        """Return what an op reads in a span, its keys and values at most those that are seen."""
        dims = self._read_dims(op, name)
        if own_name(name) == whole_input(op):
            value = self._known_whole(name)
        else:
            if name not in near:
                near[name] = self._known(name, span)
            value = near[name]
        if "key_token" not in dims or sees_all(self._sublayer, op):
            return value
        moves = None if value.moves is None else span.seen(value.moves, dims, 1)
        return Value(span.seen(value.base, dims), span.seen(value.light, dims), moves)

    def _known(self, name: str, span: Span) -> Value:
        """A tensor that no op of this span has made."""
        dims = TABLE_DIMS if is_table(name) else self._sublayer.dims(name)
        recorded = span.tokens(self._recorded[name], dims)
        moves = self._moves.get(name)
        if name == "input":
            moves = torch.cat([self._unmoved(recorded), span.tokens(self._chain, dims, 1)])
        elif moves is not None:
            moves = span.tokens(moves, dims, 1)
        base = self._based(recorded)
        return Value(base, self._types.light(base), moves)

    def _known_whole(self, name: str) -> Value:
        """Keys or values of all tokens, whose moves are there."""
        if name not in self._whole:
            base, own = self._based(self._recorded[name]), self._whole.get(own_name(name))
            if own is not None and not self._finite:
                base[:, -own.base.shape[1] :] = own.base
            light, moves = self._types.light(base), self._moves[name]
            self._whole[name] = Value(base, _by_head(light, 1), _by_head(moves, 2))
        return self._whole[name]

    def _based(self, recorded: Tensor) -> Tensor:
        base = self._types.rounded(recorded)
        return base if self._finite else base.nan_to_num(0.0, 0.0, 0.0)

    def _unmoved(self, recorded: Tensor) -> Tensor:
        """The moves of scope sublayer where it starts."""
        zeros = torch.zeros_like(recorded, dtype=self._types.draws.dtype)
        if not self._finite:
            zeros = zeros.masked_fill(~recorded.isfinite(), torch.nan)
        return zeros.expand(PASSES, *zeros.shape)

    def _keep(
        self, ops: Sequence[Op], rest: Sequence[Op], span: Span, near: Mapping[str, Value]
    ) -> None:
        """Keep the moves of what later parts read, and those of a hidden state."""
        later = {own_name(name) for op in rest for name in op.inputs}
        for op in ops:
            moves, dims = near[op.output].moves, self._sublayer.dims(op.output)
            hidden = op.output == "output" and dims == self._sublayer.dims("input")
            if moves is not None and (op.output in later or hidden):
                _put(self._moves, op.output, self._recorded[op.output].shape, moves, span, dims)

    def _join(self, name: str, join: Join) -> None:
        """Put keys or values of earlier steps before this step's."""
        past = with_past(name)
        if past not in self._recorded:
            return
        moves = self._moves[name]
        before = self._recorded[past][:, : self._recorded[past].shape[1] - moves.shape[2]]
        isolated = torch.cat([self._unmoved(before), moves[:PASSES]], dim=2)
        self._moves[past] = torch.cat([isolated, join(name, self._rebased(name))])

    def _rebased(self, name: str) -> Tensor:
        """The chain's moves of a tensor; from zero, where the next to read it starts, if the
        recorded one is not finite."""
        moves = self._moves[name][PASSES:]
        if self._finite:
            return moves
        base = self._whole[name].base
        return moves + self._types.light(base - self._based(self._recorded[name]))

    def _note(self, where: Tensors, op: Op, span: Span, value: Tensor) -> None:
        """Keep a span's part of ``value``, ``[scope, ...]``, whose last axis may be another one
        than the tensor's."""
        dims = self._sublayer.dims(op.output)
        shape = self._recorded[op.output].shape
        last = value.shape[-1] if where is not self._found.truths else shape[-1]
        _put(where, op.output, (*shape[:-1], last), value, span, dims)


def _by_head(value: Tensor, axis: int) -> Tensor:
    """Lay keys or values, with tokens and heads from ``axis`` on, out head by head, as products
    read them: else each span would copy them."""
    return value.transpose(axis, axis + 1).contiguous().transpose(axis, axis + 1)


def _put(
    where: Tensors,
    name: str,
    shape: Sequence[int],
    value: Tensor,
    span: Span,
    dims: tuple[str, ...],
) -> None:
    """Put a span's part ``[n, ...]`` of a tensor ``[n, *shape]`` in its place; what no span
    sees stays zero."""
    if name not in where:
        where[name] = value.new_zeros(len(value), *shape)
    part = span.tokens(where[name], dims, 1)
    part[..., : value.shape[-1]] = value
