"""What a trace proves about an engine without any number, and how each op was by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

MODE = "trace"
Kind = Literal[
    "missing", "extra", "doubled", "order", "input", "stale", "weight", "scalar", "tables",
    "positions", "tokens", "mask", "cache", "heads",
]  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that the engine does otherwise than the model, proved by what its calls read.

    ``place`` is a sublayer (``layers.00.attention``), ``op`` the tap of the op that is at fault,
    ``steps`` are the cases and steps it was seen in (``default/00``).
    """

    place: str
    op: str
    kind: Kind
    text: str
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Local(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One op judged from the inputs that the engine itself gave it.

    ``share`` is the part of its tolerance used, over 1 when it is wrong by itself; ``rel_l2`` its
    relative L2 error.
    """

    share: float
    rel_l2: float

    @property
    def ok(self) -> bool:
        return self.share <= 1.0


class Coverage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a golden was found among an engine's calls.

    ``found`` of ``expected`` tensors; ``fused`` are those that a fused op does not yield,
    ``absent`` those that nothing computes; ``unexplained`` counts calls by function that are not
    an op of the model, ``aside`` are calls before, between and after the golden's steps.
    """

    expected: int
    found: int
    fused: int = 0
    absent: int = 0
    calls: int = 0
    aside: int = 0
    unexplained: dict[str, int] = {}


class Trace(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What a run of mode ``trace`` says beside its tensors; it lies in the run's recipe.

    ``local`` are judgements by tensor; empty where ``local_note`` says why there are none.
    ``rows`` names tensors of which only some tokens were computed, and the token indices. In a
    report both are with the tensors.
    """

    program: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    coverage: Coverage | None = None
    local: dict[str, Local] = {}
    local_note: str = ""
    rows: dict[str, tuple[int, ...]] = {}

    def lines(self) -> Iterator[str]:
        """Say what of a golden was found among the calls, and what was not understood."""
        cover = self.coverage
        if cover is not None:
            said = f"{cover.found} of {cover.expected} tensors found"
            said += f", {cover.fused} fused away" if cover.fused else ""
            yield said + (f", {cover.absent} not computed by any call" if cover.absent else "")
            if cover.unexplained:
                each = [f"{name} ({count})" for name, count in cover.unexplained.items()]
                yield f"calls that are no op of the model: {', '.join(each)}"
        yield from self.notes
        if self.local_note:
            yield self.local_note
