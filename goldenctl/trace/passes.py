"""Which tokens each forward pass of a traced program takes: found by the embeddings it reads.

A pass begins where an activation's rows are rows of the embedding's table. Passes whose tokens
are those of a case, in its order, are the golden's; others are warm-up or another conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile
from goldenctl.golden.layout import ids_path
from goldenctl.golden.steps import Step, position_ids, steps, visible_tokens
from goldenctl.model.case import Case
from goldenctl.model.names import EMBEDDING
from goldenctl.trace.calls import Arg, Call, Calls
from goldenctl.trace.weights import Book

Ints = NDArray[np.int64]
_READS_HIDDEN = {"RMSNorm": ("x",), "AddRMSNorm": ("a", "b"), "LayerNorm": ("x",)}


@dataclass(frozen=True)
class Tokens:
    """A case as a matrix of tokens: ``ids``, ``positions`` and ``visible`` are [B, all tokens]."""

    case: Case
    steps: tuple[Step, ...]
    ids: Ints
    positions: Ints
    visible: NDArray[np.bool_]

    @staticmethod
    def of(golden: GoldenFile, entry: dict[str, object]) -> Tokens:
        name = str(entry["name"])
        prompt = golden.map(f"cases/{name}/token_ids")
        case = Case.from_recipe(entry, tuple(tuple(int(i) for i in row) for row in prompt))
        each = [s for s in steps(case) if _is_there(golden, s)]
        ids = [np.asarray(golden.map(ids_path(step)), np.int64) for step in each]
        positions = [position_ids(step).astype(np.int64) for step in each]
        width = each[-1].stop
        return Tokens(
            case, tuple(each), np.concatenate(ids, 1), np.concatenate(positions, 1),
            visible_tokens(case)[:, :width],
        )  # fmt: skip

    def steps_of(self, tokens: Ints) -> list[Step]:
        return [s for s in self.steps if ((tokens >= s.start) & (tokens < s.stop)).any()]


@dataclass(frozen=True)
class Pass:
    """One forward pass: its token ``n`` is token ``tokens[n]`` of row ``rows[n]`` of the case.

    ``call`` is the number of the call that first reads the embeddings. ``wrong`` says how its
    tokens are not the case's; empty when they are.
    """

    call: int
    tokens_of: Tokens | None
    rows: Ints
    tokens: Ints
    ids: tuple[int, ...]
    wrong: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The golden's steps that it computes: ``default/00``."""
        if self.tokens_of is None:
            return ()
        case = self.tokens_of.case.name
        return tuple(f"{case}/{s.number:02d}" for s in self.tokens_of.steps_of(self.tokens))


@dataclass(frozen=True)
class _Lookup:
    call: int
    ids: tuple[int, ...]


def find_passes(calls: Calls, book: Book, cases: Sequence[Tokens]) -> list[Pass]:
    """Return the program's passes in order, each with the tokens it takes."""
    matcher = _Matcher(cases)
    return [matcher.match(lookup) for lookup in _lookups(calls, book)]


def hidden_inputs(call: Call, calls: Calls) -> Iterator[Arg]:
    """Yield the activations of a call whose rows are all the checkpoint's."""
    names = _READS_HIDDEN.get(call.op, ())
    for arg in call.args:
        if arg.name in names and arg.before in calls.weights:
            yield arg


def _is_there(golden: GoldenFile, step: Step) -> bool:
    path = ids_path(step)
    return golden.aliases.get(path, path) in golden.tensors


def _lookups(calls: Calls, book: Book) -> Iterator[_Lookup]:
    """Yield where a norm first reads embeddings; later norms of a pass may read them again, as
    the residual that is added before them."""
    last: tuple[str | None, str | None] = (None, None)
    for call in calls.calls:
        for arg in hidden_inputs(call, calls):
            weight = call.args[-1].before
            again = arg.before == last[0] and weight != last[1]
            pieces = book.pieces(calls.weights[arg.before or ""])
            if again or not all(EMBEDDING in piece.tensors for piece in pieces):
                continue
            last = (arg.before, weight)
            ids = [p.first_row + n for p in pieces for n in range(p.rows)]
            yield _Lookup(call.number, tuple(ids))


class _Matcher:
    """Follows how far each row of each case has come."""

    def __init__(self, cases: Sequence[Tokens]) -> None:
        self._cases = cases
        self._reached = {c.case.name: np.zeros(len(c.ids), np.int64) for c in cases}
        self._last: Tokens | None = None

    def match(self, lookup: _Lookup) -> Pass:
        ids = np.array(lookup.ids, np.int64)
        for tokens, rows, columns in self._offers(len(ids)):
            if np.array_equal(tokens.ids[rows, columns], ids):
                return self._taken(lookup, tokens, rows, columns, "")
        return self._guessed(lookup, ids)

    def _taken(
        self, lookup: _Lookup, tokens: Tokens, rows: Ints, columns: Ints, wrong: str
    ) -> Pass:
        for row in np.unique(rows):
            self._reached[tokens.case.name][row] = columns[rows == row].max() + 1
        self._last = tokens
        return Pass(lookup.call, tokens, rows, columns, lookup.ids, wrong)

    def _offers(self, count: int) -> Iterator[tuple[Tokens, Ints, Ints]]:
        """Yield what a pass of so many tokens may be: a case going on, or one from its start."""
        for going_on in (True, False):
            for tokens in self._cases:
                batch = len(tokens.ids)
                starts = self._reached[tokens.case.name]
                starts = starts if going_on else np.zeros_like(starts)
                if going_on and not starts.any():
                    continue
                yield from _of_rows(tokens, range(batch), starts, count)
                for row in range(batch) if batch > 1 else ():
                    yield from _of_rows(tokens, [row], starts, count)
                if not going_on and tokens.visible.sum() >= count:
                    rows, columns = np.nonzero(tokens.visible[:, : tokens.case.prompt_length])
                    if len(rows) == count:
                        yield tokens, rows, columns

    def _guessed(self, lookup: _Lookup, ids: Ints) -> Pass:
        """A pass whose tokens are no case's: the next decode step of the case before, where it
        has as many tokens; else none of the golden's."""
        tokens = self._last
        if tokens is not None and len(ids) == len(tokens.ids):
            starts = self._reached[tokens.case.name]
            for _, rows, columns in _of_rows(tokens, range(len(ids)), starts, len(ids)):
                expected = tokens.ids[rows, columns]
                at = int(np.flatnonzero(expected != ids)[0])
                wrong = (
                    f"token {int(columns[at])} is {int(ids[at])}, the golden has "
                    f"{int(expected[at])}"
                )
                return self._taken(lookup, tokens, rows, columns, wrong)
        none = np.empty(0, np.int64)
        return Pass(lookup.call, None, none, none, lookup.ids)


def _of_rows(
    tokens: Tokens, rows: Sequence[int], starts: Ints, count: int
) -> Iterator[tuple[Tokens, Ints, Ints]]:
    width, rest = divmod(count, len(rows))
    first = int(starts[rows[0]])
    if rest or not width or first + width > tokens.ids.shape[1]:
        return
    at = np.repeat(np.array(list(rows), np.int64), width)
    yield tokens, at, np.tile(np.arange(first, first + width), len(rows))


def token_problem(passes: Sequence[Pass], cases: Sequence[Tokens]) -> list[tuple[Tokens, str]]:
    """Say of each case that no pass begins how the nearest one's tokens differ."""
    begun = {p.tokens_of.case.name for p in passes if p.tokens_of is not None}
    strangers = [p.ids for p in passes if p.tokens_of is None]
    return [
        (tokens, _difference(tokens.ids[0, : tokens.case.prompt_length].tolist(), strangers))
        for tokens in cases
        if tokens.case.name not in begun
    ]


def _difference(expected: list[int], found: Sequence[tuple[int, ...]]) -> str:
    if not found:
        return ""
    for ids in found:
        if list(ids[1:]) == expected:
            return f"token ids differ: the engine puts {ids[0]} before them, such as a BOS"
        if list(ids) == expected[1:]:
            return (
                f"token ids differ: the engine leaves out the first, {expected[0]}, such as a BOS"
            )
    best = max(found, key=lambda ids: sum(a == b for a, b in zip(ids, expected, strict=False)))
    where = next((n for n, (a, b) in enumerate(zip(best, expected, strict=False)) if a != b), None)
    if where is None:
        return f"token ids differ: the engine has {len(best)}, the golden {len(expected)}"
    return f"token ids differ: token {where} is {best[where]}, the golden has {expected[where]}"
