"""Times of whole steps: tokens per second of the golden's reference and of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

from goldenctl.places import layer_of, place_of, short_name
from goldenctl.records.report import StepTime

if TYPE_CHECKING:
    from goldenctl.records.report import SublayerResult

_ENDS = ("embedding", "lm_head")


def step_times(sublayers: Sequence[SublayerResult], decode: Container[str]) -> tuple[StepTime, ...]:
    """Return the steps of which every sublayer from the embedding to the logits ran; ``decode``
    are the paths of those that are no part of the prompt."""
    return tuple(_step_times(sublayers, decode))


def _step_times(sublayers: Sequence[SublayerResult], decode: Container[str]) -> Iterator[StepTime]:
    steps: dict[str, list[SublayerResult]] = {}
    for sublayer in sublayers:
        steps.setdefault(place_of(sublayer.name).label, []).append(sublayer)
    for step, members in steps.items():
        if step and _whole(members):
            embedding = members[0].tensors[0]
            yield StepTime(
                step=step,
                kind="decode" if _path(members[0]) in decode else "prefill",
                tokens=math.prod(embedding.shape[:2]) - embedding.padding_rows,
                expected_ns=sum(member.expected_ns for member in members),
                actual_ns=sum(member.actual_ns for member in members),
            )


def _path(sublayer: SublayerResult) -> str:
    return place_of(sublayer.name).step_path


def _whole(members: Sequence[SublayerResult]) -> bool:
    """Whether the layers are there without a gap, between the embedding and the logits."""
    names = [short_name(member.name) for member in members]
    layers = Counter(layer for name in names if (layer := layer_of(name)) is not None)
    alike = list(layers) == list(range(len(layers))) and len(set(layers.values())) <= 1
    embedded = names[0] == _ENDS[0] and bool(members[0].tensors)
    ran = all(member.failure is None for member in members)
    return embedded and names[-1] == _ENDS[1] and alike and ran
