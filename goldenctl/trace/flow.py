"""The golden's graph as places: which op reads and yields which tensor of a case."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from goldenctl.model import graph
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer
from goldenctl.trace.values import Place


@dataclass(frozen=True)
class Node:
    """One op of a case; ``inputs`` are the places of the tensors it reads, tables left out."""

    place: Place
    op: Op
    sublayer: Sublayer
    inputs: tuple[Place, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        return self.sublayer.dims(self.op.output)


@dataclass
class Flow:
    """All ops of a case in execution order."""

    case: str
    config: ModelConfig
    nodes: dict[Place, Node] = field(default_factory=dict)
    consumers: dict[Place, list[Place]] = field(default_factory=dict)
    by_weight: dict[str, list[Place]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        before = Place(self.case, "embedding", "token_ids")
        for sublayer in graph.decoder(self.config, logits="all"):
            taps = set(sublayer.taps)
            for op in sublayer.ops:
                place = Place(self.case, sublayer.name, op.output)
                inputs = tuple(
                    Place(self.case, sublayer.name, name) if name in taps else before
                    for name in op.inputs
                    if name in taps or name == "input"
                )
                self.nodes[place] = Node(place, op, sublayer, inputs)
                for each in inputs:
                    self.consumers.setdefault(each, []).append(place)
                for weight in op.weights:
                    self.by_weight.setdefault(weight, []).append(place)
            before = Place(self.case, sublayer.name, sublayer.ops[-1].output)
        self.order = {place: number for number, place in enumerate(self.nodes)}

    def after(self, place: Place) -> list[Place]:
        return self.consumers.get(place, [])

    def downstream(self, place: Place) -> Iterator[Place]:
        """Yield what is computed from a place, nearest first."""
        seen, queue = {place}, deque([place])
        while queue:
            for each in self.after(queue.popleft()):
                if each not in seen:
                    seen.add(each)
                    queue.append(each)
                    yield each

    def between(self, start: Place, end: Place) -> list[Place]:
        """Return the places of the shortest way behind ``start`` up to ``end``; empty when
        ``end`` is not computed from ``start``."""
        came: dict[Place, Place] = {}
        for each in (start, *self.downstream(start)):
            for next_ in self.after(each):
                came.setdefault(next_, each)
        way, at = [], end
        while at != start:
            if at not in came:
                return []
            way.append(at)
            at = came[at]
        return way[::-1]
