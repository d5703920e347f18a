"""What blame finds, as part of a report: culprits and their bugs, depth, the graft."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

EXPLAINS = 0.9
"""The part of the squared error that a cause must explain to be named as one."""


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
    apart, none when no known fault does; ``looks_like`` then says what the error looks like and
    ``nearest`` which fault explains most of it, which is not a cause. ``skipped`` are faults that
    could not be tried, and why.
    """

    name: str
    sublayer: str
    tap: str
    op: str
    message: str = ""
    diagnosed: bool = False
    causes: tuple[Cause, ...] = ()
    looks_like: tuple[str, ...] = ()
    nearest: Cause | None = None
    skipped: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[Cause, ...]:
        """The causes that explain enough; a report from before 0.9 was asked may hold others."""
        return tuple(cause for cause in self.causes if cause.explained >= EXPLAINS)

    @property
    def summary(self) -> str:
        """One sentence: the bug and how much of the error it explains, or that none does."""
        if not self.diagnosed:
            return self.message
        return explanation(self.causes, self.nearest, self.looks_like)


def explanation(causes: Sequence[Cause], nearest: Cause | None, looks_like: Sequence[str]) -> str:
    """Return the sentence for a diagnosis: its faults, or which is nearest and what the error
    looks like."""
    named = [cause for cause in causes if cause.explained >= EXPLAINS]
    if named:
        titles = " or ".join(f"'{cause.title}'" for cause in named)
        return f"{named[0].explained:.1%} of the error is explained by {titles}"
    nearest = nearest or next(iter(causes), None)
    like = f"{likeness(nearest)}; " if nearest is not None else ""
    seen = "; ".join(looks_like) or "like no pattern that is known here"
    return f"not explained by a known fault; {like}the error looks like: {seen}"


def likeness(nearest: Cause) -> str:
    """Say which fault comes nearest; that it explains all is never said, since it does not."""
    share = min(int(nearest.explained * 100), 99)
    return f"most like '{nearest.title}' (explains {share}%)"


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
    """Everything that blame adds to the comparison; ``note`` is what kept it from more, or
    what a replay with a traced engine's bugs showed."""

    culprits: tuple[Culprit, ...] = ()
    depths: tuple[Depth, ...] = ()
    graft: Graft | None = None
    note: str = ""

    def culprit(self, name: str) -> Culprit | None:
        """Return the culprit whose tensor has this name."""
        return next((culprit for culprit in self.culprits if culprit.name == name), None)
