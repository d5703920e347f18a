"""Owns what blame finds, as part of a report: culprits and their bugs, depth, the graft."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault, or several together, that reproduce a culprit's output up to rounding.

    ``explained`` is the part of the squared error that they explain, ``residual`` the
    relative L2 error that is left.
    """

    title: str
    faults: tuple[str, ...]
    explained: float
    residual: float


class Culprit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An op that is wrong although its inputs are right.

    ``causes`` are those that reproduce it: more than one when this input cannot tell them
    apart, none when no known fault does; ``looks_like`` then says what the error looks like.
    """

    name: str
    sublayer: str
    tap: str
    op: str
    message: str = ""
    diagnosed: bool = False
    causes: tuple[Cause, ...] = ()
    looks_like: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence: the bug and how much of the error it explains, or that none does."""
        if not self.diagnosed:
            return self.message
        explained = self.causes[0].explained if self.causes else 0.0
        return explanation([cause.title for cause in self.causes], explained, self.looks_like)


def explanation(titles: Sequence[str], explained: float, looks_like: Sequence[str]) -> str:
    """Return the sentence for a diagnosis: its faults, or what the error looks like."""
    if titles:
        named = " or ".join(f"'{title}'" for title in titles)
        return f"{explained:.1%} of the error is explained by {named}"
    seen = "; ".join(looks_like) or "like no pattern that is known here"
    return f"not explained by a known fault; the error looks like: {seen}"


class Depth(msgspec.Struct, frozen=True):
    """One sublayer's part in how an error grows: relative L2 errors of its output.

    ``local`` from golden input, ``inherited`` what came in by the chain, ``chained`` what
    went out. ``word`` is culprit, victim, amplifier, healed or empty.
    """

    name: str
    local: float
    inherited: float
    chained: float
    word: str

    @property
    def amplification(self) -> float:
        return self.chained / self.inherited if self.inherited > 0 else float("nan")


class Graft(msgspec.Struct, frozen=True):
    """A chain replay with the golden's tensors in place of the culprits': how many of the
    sublayers that were wrong are right again, and the last token's most likely next token
    (golden, without the graft, with it; None without logits)."""

    wrong_before: int
    wrong_after: int
    top1: tuple[int, int, int] | None = None

    @property
    def top1_state(self) -> str:
        """What became of the next token: right all along, healed or wrong."""
        assert self.top1 is not None
        golden, before, after = self.top1
        return "right all along" if before == golden else "healed" if after == golden else "wrong"


class Findings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that blame adds to the comparison; ``note`` is what kept it from more."""

    culprits: tuple[Culprit, ...] = ()
    depths: tuple[Depth, ...] = ()
    graft: Graft | None = None
    note: str = ""

    def culprit(self, name: str) -> Culprit | None:
        """Return the culprit whose tensor has this name."""
        return next((culprit for culprit in self.culprits if culprit.name == name), None)
