"""Owns the time of whole steps: tokens per second of the golden's reference and of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from goldenctl.golden.schema import short_name

if TYPE_CHECKING:
    from goldenctl.diff.report import SublayerResult

_ENDS = ("embedding", "lm_head")


class StepTime(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One whole step of a case, ``default/00``: its tokens, and the sums of its ops' times in
    nanoseconds; 0 where they were not taken."""

    step: str
    tokens: int
    expected_ns: int = 0
    actual_ns: int = 0

    @property
    def expected_per_s(self) -> float:
        return self.tokens * 1e9 / self.expected_ns if self.expected_ns else 0.0

    @property
    def actual_per_s(self) -> float:
        return self.tokens * 1e9 / self.actual_ns if self.actual_ns else 0.0


def step_times(sublayers: Sequence[SublayerResult]) -> tuple[StepTime, ...]:
    """Return the steps of which every sublayer from the embedding to the logits ran."""
    return tuple(_step_times(sublayers))


def _step_times(sublayers: Sequence[SublayerResult]) -> Iterator[StepTime]:
    steps: dict[str, list[SublayerResult]] = {}
    for sublayer in sublayers:
        parts = sublayer.name.split("/")
        steps.setdefault(f"{parts[1]}/{parts[3]}" if len(parts) > 3 else "", []).append(sublayer)
    for step, members in steps.items():
        if step and _whole(members):
            shape = members[0].tensors[0].shape
            yield StepTime(
                step=step,
                tokens=math.prod(shape[:2]),
                expected_ns=sum(member.expected_ns for member in members),
                actual_ns=sum(member.actual_ns for member in members),
            )


def _whole(members: Sequence[SublayerResult]) -> bool:
    """Whether the layers are there without a gap, between the embedding and the logits."""
    names = [short_name(member.name) for member in members]
    layers = [name for name in names if name.startswith("layers.")]
    count = len(layers) // 2
    wanted = [f"layers.{n:02d}.{part}" for n in range(count) for part in ("attention", "mlp")]
    embedded = names[0] == _ENDS[0] and bool(members[0].tensors)
    ran = all(member.failure is None for member in members)
    return embedded and names[-1] == _ENDS[1] and layers == wanted and ran
