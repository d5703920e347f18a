"""The steps of a case: which of its tokens a forward pass takes, their positions, and
which tokens it may see.

A case is one matrix of tokens: the prompt's columns, then one column for each decode step.
Step ``00`` takes the prompt, whole or its first chunk; every later step takes the columns
that follow, over the keys and values of the steps before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goldenctl.model import graph
from goldenctl.model.case import Case
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Sublayer
from goldenctl.places import step_path, sublayer_path

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One forward pass: the columns ``start`` to ``stop`` of a case."""

    case: Case
    number: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        return step_path(self.case.name, self.number)

    @property
    def token(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        return self.stop == self.case.length

    @property
    def is_prompt(self) -> bool:
        """Whether this is the whole prompt, whose ids the golden keeps with the case."""
        return self.start == 0 and self.stop == self.case.prompt_length

    @property
    def is_generated(self) -> bool:
        """Whether its token is the one that the step before found most likely."""
        return self.case.generates and self.start >= self.case.prompt_length

    def sublayer_path(self, sublayer: str) -> str:
        return sublayer_path(self.case.name, self.number, sublayer)

    def sizes(self, config: ModelConfig) -> dict[str, int]:
        return graph.sizes(config, len(self.case.token_ids), self.token, self.start)

    def sublayers(self, config: ModelConfig, *, logits: str) -> list[Sublayer]:
        """The decoder's sublayers in this step, in execution order.

        Where the last column holds padding, logits of the last token alone would say nothing
        of the padded rows: all are kept.
        """
        mask = attention_mask(self)
        if logits == "last" and mask is not None and not mask[:, -1].all():
            logits = "all"
        return list(
            graph.decoder(
                config,
                logits=logits,
                past=self.start > 0,
                masked=mask is not None,
                positions=int(position_ids(self).max()) + 1,
            )
        )

    def known_ids(self) -> Ids:
        """The step's token ids [B, S], unless they are generated."""
        rows = self.case.token_ids
        if self.start >= self.case.prompt_length:
            first = self.start - self.case.prompt_length
            return np.array([row[first : first + self.token] for row in self.case.forced], np.int32)
        return np.array([row[self.start : self.stop] for row in rows], np.int32)


def steps(case: Case) -> tuple[Step, ...]:
    """Return a case's steps in order."""
    prompt = case.prompt_length
    chunk = case.prefill_chunk or prompt
    ends = [*range(chunk, prompt, chunk), *range(prompt, case.length + 1)]
    starts = [0, *ends]
    spans = zip(starts[: len(ends)], ends, strict=True)
    return tuple(Step(case, number, *span) for number, span in enumerate(spans))


def position_ids(step: Step) -> Ids:
    """Return where the step's tokens stand, [B, S]: counted from the case's offset over the
    tokens that are no padding, as transformers' ``generate`` does; padding stands at 0."""
    visible = visible_tokens(step.case)
    counted = np.where(visible, np.cumsum(visible, axis=1) - 1 + step.case.position_offset, 0)
    return counted[:, step.start : step.stop].astype(np.int32)


def attention_mask(step: Step) -> Ids | None:
    """Return which tokens so far may be seen, [B, T]: 0 is padding; None without padding."""
    if not any(step.case.padding):
        return None
    return visible_tokens(step.case)[:, : step.stop].astype(np.int32)


def position_count(cases: Sequence[Case]) -> int:
    """Return how many positions the rotary tables of these cases need."""
    return max(case.position_offset + case.length for case in cases)


def visible_tokens(case: Case) -> NDArray[np.bool_]:
    """Return which tokens of a case are no padding, [B, all tokens]."""
    visible = np.ones((len(case.token_ids), case.length), np.bool_)
    for row, count in enumerate(case.padding):
        first = 0 if case.padding_side == "left" else case.prompt_length - count
        visible[row, first : first + count] = False
    return visible
