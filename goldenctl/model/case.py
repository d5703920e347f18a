"""A case: one input of the model, as what a recipe says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from goldenctl.model.config import ModelConfig
from goldenctl.model.fields import show

PADDING_SIDES = ("left", "right")
Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Wording:
    """How texts became tokens, by row: ``tokens`` as text, empty where ids were given;
    ``decoded`` what they decode to where that is not the text; ``tokenizer`` the class of
    transformers that made them where tokenizer.json alone makes others."""

    tokens: tuple[tuple[str, ...], ...] = ()
    decoded: tuple[str | None, ...] = ()
    tokenizer: str = ""

    def notes(self) -> Iterator[str]:
        """Say what is not as a reader of the prompt would expect."""
        for text in self.decoded:
            if text is not None:
                shown = json.dumps(
                    text if len(text) <= 60 else f"{text[:57]}...", ensure_ascii=False
                )
                yield f"its tokens decode to {shown}, not to the prompt"
        if self.tokenizer:
            yield (
                f"tokens as AutoTokenizer's {self.tokenizer} makes them; tokenizer.json alone "
                "makes others"
            )


@dataclass(frozen=True)
class Case:
    """One input: ``token_ids`` is the prompt, ``[batch, token]``, padding included.

    ``text`` is its prompt, if it had one, or ``row_texts`` those of its rows; ``why`` says what
    it is there to show. ``decode`` tokens
    follow: the ``forced`` ones, ``[batch, decode]``, or those that the model finds most
    likely. ``padding`` counts each row's padding tokens on ``padding_side``; empty without.
    Positions count from ``position_offset``; ``prefill_chunk`` is the most prompt tokens of
    one step, 0 for all. ``wording`` says how texts became the ids.
    """

    name: str
    token_ids: Rows
    text: str | None = None
    why: str = ""
    decode: int = 0
    forced: Rows = ()
    padding: tuple[int, ...] = ()
    padding_side: str = "left"
    position_offset: int = 0
    prefill_chunk: int = 0
    row_texts: tuple[str | None, ...] = ()
    wording: Wording = Wording()

    @property
    def prompt_length(self) -> int:
        return len(self.token_ids[0])

    @property
    def length(self) -> int:
        """Tokens of a row when the last step is done."""
        return self.prompt_length + self.decode

    @property
    def generates(self) -> bool:
        """Whether the model itself chooses the tokens that follow the prompt."""
        return self.decode > 0 and not self.forced

    def problem(self, config: ModelConfig) -> str:
        """Say what of the case the model cannot take; empty when it can take it."""
        rows = len(self.token_ids)
        length = self.position_offset + self.length if self.token_ids else 0
        forced = _problem_of_rows(self.forced, config) if self.forced else ""
        if problem := _problem_of_rows(self.token_ids, config):
            return problem
        if forced:
            return f"forced tokens: {forced}"
        if self.forced and (len(self.forced), len(self.forced[0])) != (rows, self.decode):
            return f"{len(self.forced)} rows of forced tokens for {rows} rows"
        if self.padding and (len(self.padding) != rows or max(self.padding) >= self.prompt_length):
            return "padding leaves a row without a token"
        if self.padding and self.padding_side not in PADDING_SIDES:
            return f"padding_side {show(self.padding_side)}: expected left or right"
        if any(self.padding) and self.padding_side == "right" and self.generates:
            return "it ends with padding in some rows, which no generated token can follow"
        if length > config.max_position_embeddings:
            return (
                f"{length} tokens (decode steps included), but the model has "
                f"max_position_embeddings {config.max_position_embeddings}"
            )
        return ""

    def to_recipe(self) -> dict[str, Any]:
        """Return what a recipe keeps: all but the ids, and only what is not the default."""
        entry: dict[str, Any] = {"name": self.name, "text": self.text}
        optional = {
            "why": self.why,
            "decode": self.decode,
            "force_tokens": [list(row) for row in self.forced],
            "padding": list(self.padding),
            "padding_side": self.padding_side if self.padding else "",
            "position_offset": self.position_offset,
            "prefill_chunk": self.prefill_chunk,
            "row_texts": list(self.row_texts),
            "tokens": [list(row) for row in self.wording.tokens],
            "decoded": list(self.wording.decoded),
            "tokenizer": self.wording.tokenizer,
        }
        return entry | {key: value for key, value in optional.items() if value}

    @staticmethod
    def from_recipe(entry: dict[str, Any], token_ids: Rows) -> Case:
        """Return the case that ``to_recipe`` described, with its prompt's ids."""
        return Case(
            name=entry["name"],
            token_ids=token_ids,
            text=entry.get("text"),
            why=entry.get("why", ""),
            decode=entry.get("decode", 0),
            forced=tuple(map(tuple, entry.get("force_tokens", ()))),
            padding=tuple(entry.get("padding", ())),
            padding_side=entry.get("padding_side", "left"),
            position_offset=entry.get("position_offset", 0),
            prefill_chunk=entry.get("prefill_chunk", 0),
            row_texts=tuple(entry.get("row_texts", ())),
            wording=wording_of(entry),
        )


def wording_of(entry: dict[str, Any]) -> Wording:
    """Return what a recipe says of a case's tokens."""
    return Wording(
        tokens=tuple(map(tuple, entry.get("tokens", ()))),
        decoded=tuple(entry.get("decoded", ())),
        tokenizer=entry.get("tokenizer", ""),
    )


def _problem_of_rows(rows: Rows, config: ModelConfig) -> str:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        return "there are no tokens" if lengths <= {0} else "the rows differ in length"
    for row in rows:
        for token in row:
            if not 0 <= token < config.vocab_size:
                return f"token id {show(token)} is outside 0..{config.vocab_size - 1}"
    return ""
