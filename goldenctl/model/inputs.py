"""What a user asks to be put into the model, and in which steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.flags import flag


@dataclass(frozen=True)
class Inputs:
    """What goes into the model, and in which steps; nothing at all means the default prompt.

    ``token_ids`` are texts like ``1,2,3``, rows of a batch separated by ``;``. ``force_tokens``
    are like ``token_ids``, one row for every row of every case or one for each. ``suite`` is
    one of model/suite.py.
    """

    prompts: Sequence[str] = flag((), "Text (repeatable).", name="--prompt", kind="text", many=True)
    prompts_file: Path | None = flag(None, "One prompt per line, or JSON lines.", kind="path")
    token_ids: Sequence[str] = flag((), "Ids such as 1,2,3.", metavar="IDS", many=True)
    random_tokens: int | None = flag(None, "N random token ids.", kind="integer", metavar="N")
    seed: int | None = flag(None, "Seed of --random-tokens; 0 by default.", kind="integer")
    suite: str | None = flag(
        None,
        "Ten inputs that every port should be tried with; inspect says why.",
        kind=("standard",),
    )
    decode: int = flag(
        0,
        "Decode N tokens over the KV cache, each the most likely one.",
        least=0,
        most=100_000,
        metavar="N",
    )
    force_tokens: str | None = flag(
        None, "Decode these ids, such as 5,6,7, instead.", metavar="IDS"
    )
    prefill_chunk: int = flag(
        0,
        "Process the prompt N tokens at a time, to bound the memory of long ones.",
        least=0,
        metavar="N",
    )
    batch: bool = flag(False, "Put all inputs into one batch, a row each.")
    padding_side: str | None = flag(
        None,
        "The side on which --batch pads shorter rows; left by default.",
        name="--padding",
        kind=("left", "right"),
    )

    def refuse_contradictions(self) -> None:
        """Raise UsageError for options that do not go together."""
        if self.decode and self.force_tokens is not None:
            message = "--decode and --force-tokens: give one of them"
            raise UsageError(message, hint="forced tokens are decoded, one in each step")
        if self.padding_side is not None and not self.batch:
            message = "--padding says where --batch pads, which was not given"
            raise UsageError(message)
        if self.seed is not None and self.random_tokens is None:
            message = f"--seed {self.seed}: only --random-tokens draws random numbers"
            raise UsageError(message, hint="leave it out, or give --random-tokens N")
