"""What a trace proves about an engine without any number, and how each op was by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

MODE = "trace"
_LAYER = re.compile(r"layers\.\d+\.|(?<=layer )\d+|(?<=model\.layers\.)\d+")
_OF_LAYER = re.compile(r"layers\.(\d+)\.(\w+)")
Kind = Literal[
    "missing", "extra", "doubled", "order", "input", "stale", "weight", "scalar", "tables",
    "positions", "tokens", "mask", "cache", "heads",
]  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that the engine does differently from the model, proved by what its calls read.

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


@dataclass(frozen=True)
class Merged:
    """One thing that is wrong in all layers and steps where it is the same.

    ``where`` is a place, or several as ``layers.00-03.attention``; ``details`` say what of the
    layers and steps is left to say.
    """

    where: str
    details: tuple[str, ...]
    first: Finding

    def __str__(self) -> str:
        return f"{self.where}: {self.first.text}"


def merged(findings: Sequence[Finding], steps: int) -> list[Merged]:
    """Return findings, the first in execution order first, those of several layers as one;
    ``steps`` is how many steps there are."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        key = (without_layer(f"{finding.place}."), without_layer(finding.text))
        alike.setdefault(key, []).append(finding)
    return [_merged(group, steps) for group in alike.values()]


def without_layer(text: str) -> str:
    """Return a text that is the same for every layer."""
    return _LAYER.sub("", text)


def _merged(findings: list[Finding], steps: int) -> Merged:
    first = findings[0]
    where, others = together(list(dict.fromkeys(finding.place for finding in findings)))
    details = [f"also in {_some(others)}"] if others else []
    seen = list(dict.fromkeys(step for finding in findings for step in finding.steps))
    if steps > 1 and len(seen) < steps:
        details.append(f"in {_some(seen)}")
    return Merged(where, tuple(details), first)


def together(places: list[str]) -> tuple[str, list[str]]:
    """Return neighbouring layers as one place; else the first, and the others."""
    found = [_OF_LAYER.fullmatch(place) for place in places]
    numbers = [int(match[1]) for match in found if match]
    first = found[0]
    whole = len(numbers) == len(places) > 1
    if first and whole and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"layers.{numbers[0]:02d}-{numbers[-1]:02d}.{first[2]}", []
    return places[0], places[1:]


def _some(items: list[str]) -> str:
    return ", ".join(items[:4]) + (", ..." if len(items) > 4 else "")


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
            said = f"{cover.found:,} of {cover.expected:,} tensors found"
            said += f", {cover.fused:,} fused away" if cover.fused else ""
            yield said + (f", {cover.absent:,} not computed by any call" if cover.absent else "")
            if cover.unexplained:
                each = [f"{name} ({count})" for name, count in cover.unexplained.items()]
                yield f"calls that are not an op of the model: {', '.join(each)}"
        yield from self.notes
        if self.local_note:
            yield self.local_note
