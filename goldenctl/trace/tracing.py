"""The state of naming: what lies where, which pass it is, what was found and what is wrong."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile
from goldenctl.model import graph
from goldenctl.records.structure import Finding, Kind
from goldenctl.trace.calls import Arg, Call, Calls
from goldenctl.trace.canvas import Canvas
from goldenctl.trace.flow import Flow, Node
from goldenctl.trace.layout import DTYPES, packed_count, unpack
from goldenctl.trace.memory import UNKNOWN, Memory, Tags
from goldenctl.trace.passes import Pass, Tokens
from goldenctl.trace.recover import recovered
from goldenctl.trace.values import WEIGHTS, Place, Values, flats_of, numbers_of, tag_of
from goldenctl.trace.vectors import Vectors
from goldenctl.trace.weights import Book, Piece

# What is said once of an op, with the numbers of the first step that shows it.
_ONCE = ("positions", "mask", "cache")
_LEFT_BY_CHANCE = 0.5  # of a sum's elements, that stay the same when others are added
_SMALL_WEIGHT = 1 << 20  # elements of a weight that is followed element by element


@dataclass
class Tracing:
    """What the handlers of calls share (norms.py, linear.py, attention.py, ...)."""

    golden: GoldenFile
    book: Book
    calls: Calls
    cases: dict[str, Tokens]
    values: Values = field(init=False)
    pass_: Pass | None = None
    done: set[Place] = field(default_factory=set)  # in this pass
    ever: set[Place] = field(default_factory=set)  # in this process
    fused: set[Place] = field(default_factory=set)
    biased: set[Place] = field(default_factory=set)
    reads: dict[tuple[Place, int, str], Place] = field(default_factory=dict)  # by step
    unjudged: set[tuple[Place, str]] = field(default_factory=set)  # likewise
    in_part: set[str] = field(default_factory=set)  # names of the golden's tensors
    hidden: dict[str, Tags] = field(default_factory=dict)  # by content, the pass's embeddings
    notes: dict[str, None] = field(default_factory=dict)
    unexplained: Counter[str] = field(default_factory=Counter)  # by function
    strangers: list[Call] = field(default_factory=list)  # the calls themselves
    _found: dict[tuple[str, str, Kind, str], dict[str, None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.golden.config
        sizes = {
            name: graph.sizes(config, *tokens.ids.shape) for name, tokens in self.cases.items()
        }
        self.values = Values(sizes)
        self.memory = Memory(self.calls)
        self.canvas = Canvas(self.values)
        self.flows = {name: Flow(name, config) for name in self.cases}
        self.vectors = Vectors(self.book.checkpoint)

    def of_process(self, calls: Calls) -> Tracing:
        """Return the state for another process of the program: what is found is found together,
        but its memory, its passes and what it computes are its own."""
        other = copy.copy(self)
        other.calls, other.memory, other.canvas = calls, Memory(calls), Canvas(self.values)
        other.pass_, other.done, other.ever, other.hidden = None, set(), set(), {}
        return other

    @property
    def flow(self) -> Flow:
        tokens = self.now.tokens_of
        assert tokens is not None
        return self.flows[tokens.case.name]

    @property
    def now(self) -> Pass:
        assert self.pass_ is not None
        return self.pass_

    def not_explained(self, call: Call) -> None:
        """Note a call that is not an op of the model."""
        self.unexplained[call.function] += 1
        self.strangers.append(call)

    # --- reading ---

    def tags(self, arg: Arg) -> Tags:
        """Return what the elements of an input are, in its shape."""
        if arg.before in self.hidden:
            return unpack(self.hidden[arg.before], arg.shape, arg.strides).astype(np.int64)
        if arg.before in self.calls.weights:
            return self._weight_tags(arg)
        tags = self.memory.read(arg)
        if (tags == UNKNOWN).any() and self.calls.holds(arg.before):
            tags = self._vector_tags(arg, self._reduced(arg, tags))
            if (tags == UNKNOWN).any():
                tags = recovered(tags, self.calls.before(arg), self.canvas, self.values)
            self.memory.retag(arg, tags, arg.before or "")
        return tags

    def pieces(self, arg: Arg) -> tuple[Piece, ...]:
        """Return the parts of the checkpoint that a tensor is made of; empty when it is none."""
        weight = self.calls.weights.get(arg.before or "")
        return () if weight is None else self.book.pieces(weight)

    def _weight_tags(self, arg: Arg) -> Tags:
        count = packed_count(arg.shape, arg.strides)
        if count > _SMALL_WEIGHT:
            return np.full(arg.shape, UNKNOWN, np.int64)
        parts, weight = [], self.calls.weights[arg.before or ""]
        for piece in self.pieces(arg):
            name = piece.tensors[0] if piece.tensors else ""
            shape = self.book.checkpoint.tensor(name).shape if name else (0,)
            width = shape[-1] if len(shape) else 1
            size = piece.rows * width
            if weight.row_bytes != width * DTYPES[arg.dtype].itemsize:
                return np.full(arg.shape, UNKNOWN, np.int64)  # columns of a weight
            number = self.values.number(Place("", WEIGHTS, name), shape=shape)
            parts.append(tag_of(number, np.arange(size) + piece.first_row * width))
        packed = np.concatenate(parts) if parts else np.empty(0, np.int64)
        if len(packed) != count:
            return np.full(arg.shape, UNKNOWN, np.int64)
        if weight.form == "transposed":
            packed = packed.reshape(len(weight.digests), -1).T.reshape(-1)
        return unpack(packed, arg.shape, arg.strides).astype(np.int64)

    def _reduced(self, arg: Arg, tags: Tags) -> Tags:
        """Recognise a sum that ranks have completed: other bytes where one rank's part was."""
        left = self.memory.read(arg, changed=True)
        parts = self.values.parts(left)
        if len(parts) != 1 or (left == UNKNOWN).any() or (tags != UNKNOWN).mean() > _LEFT_BY_CHANCE:
            return tags
        place = parts[0].place
        whole: Tags = tag_of(self.number(place), flats_of(left))
        self._noted(whole)
        if self.now.wrong == "":
            self.canvas.put(whole, self.calls.before(arg), self.now.names)
        text = "a part of the columns alone, the rest is added outside of InfiniCore's API"
        self.notes[f"{_role(place)}: calls compute {text}"] = None
        return whole

    def _vector_tags(self, arg: Arg, tags: Tags) -> Tags:
        """Recognise vectors of the checkpoint joined to one, such as the biases of q, k, v."""
        if packed_count(arg.shape, arg.strides) > _SMALL_WEIGHT:
            return tags
        found = self.vectors.parts(self.calls.bytes(arg.before or ""), arg.dtype)
        if not found:
            return tags
        parts = [
            tag_of(self.values.number(Place("", WEIGHTS, name), shape=(size,)), np.arange(size))
            for name, size in found
        ]
        return unpack(np.concatenate(parts), arg.shape, arg.strides).astype(np.int64)

    # --- choosing ---

    def choose(
        self,
        kind: str,
        sources: Sequence[Place],
        *,
        weights: Iterable[str] = (),
        fits: Callable[[Node], bool] = lambda _node: True,
    ) -> Place | None:
        """Return the op that a call is: by the weights that it reads, then by whose outputs it
        reads, then by order.

        Where both say different things, an op that reads these tensors and that this pass has
        not computed yet is the one: its weight is wrong. Else the weight is right, and what it
        reads is wrong.
        """
        flow = self.flow
        fit = [n.place for n in flow.nodes.values() if n.op.kind == kind and fits(n)]
        by_weight = [p for w in weights for p in flow.by_weight.get(w, ()) if p in fit]
        scores = {p: sum(s in flow.nodes[p].inputs for s in sources) for p in fit}
        by_flow = sorted((p for p in fit if scores[p]), key=lambda p: (-scores[p], p in self.done))
        if by_flow and not flow.nodes[by_flow[0]].op.weights:
            return by_flow[0]
        both = [p for p in by_flow if p in by_weight]
        open_ = [p for p in by_flow if p not in self.done]
        if both:
            return next((p for p in both if p not in self.done), both[0])
        if open_:
            return open_[0]
        if by_weight:
            return next((p for p in by_weight if p not in self.done), by_weight[0])
        return self._by_order(kind, sources, fit) or next(iter(by_flow), None)

    def _by_order(self, kind: str, sources: Sequence[Place], fit: list[Place]) -> Place | None:
        """Return the nearest op behind the sources that is still to come: in their sublayer, else
        the same op once more, else in another one."""
        for source in sources:
            behind = [p for p in self.flow.downstream(source) if p in fit and p not in self.done]
            near = [p for p in behind if p.sublayer == source.sublayer]
            again = [source] if source in fit else []
            for place in (*near, *again, *behind):
                return place
        return None

    # --- writing ---

    def yields(self, call: Call, arg: Arg, tags: Tags) -> None:
        """Store what an output is; the elements' values go to the canvas."""
        self.memory.write(arg, tags)
        tags = self._noted(tags)
        if self.calls.holds(arg.after) and self.now.wrong == "":
            self.canvas.put(tags, self.calls.after(arg), self.now.names, call.time_ns)

    def _noted(self, tags: Tags) -> Tags:
        """Note what of the golden was computed; return the tags without those of anything else."""
        numbers = numbers_of(tags)
        for number in np.unique(numbers[numbers >= 0]):
            place = self.values.place(int(number))
            if place.is_weight or self.values.is_part(place):
                tags = np.where(numbers == number, UNKNOWN, tags)
            else:
                self.done.add(place)
                self.ever.add(place)
        return tags

    def forget(self, arg: Arg) -> None:
        """Store that an output is nothing known; of one that is changed in part, what is new is
        seen by its bytes."""
        if arg.io != "inout":
            self.memory.write(arg, np.full(arg.shape, UNKNOWN, np.int64))

    def found_embeddings(self, arg: Arg, tags: Tags, values: NDArray[Any]) -> None:
        """Store what lies where a pass's first norm reads."""
        self.memory.retag(arg, tags, arg.before or "")
        place = self.values.place(int(numbers_of(tags).reshape(-1)[0]))
        self.done.add(place)
        self.ever.add(place)
        if not self.now.wrong:
            self.canvas.put(tags, values)

    def number(self, place: Place) -> int:
        node = self.flows[place.case].nodes[place]
        return self.values.number(place, node.dims)

    # --- findings ---

    def find(self, place: Place, kind: Kind, text: str) -> None:
        """Note what is wrong with an op, once for all passes that show it."""
        alike = [k for k in self._found if k[:3] == (place.sublayer, place.tap, kind)]
        one = kind in _ONCE and alike
        key = alike[0] if one else (place.sublayer, place.tap, kind, text)
        self._found.setdefault(key, {}).update(dict.fromkeys(self.now.names))

    def find_tokens(self, case: str, text: str) -> None:
        self._found.setdefault(("embedding", "output", "tokens", text), {})[f"{case}/00"] = None

    def findings(self) -> tuple[Finding, ...]:
        order = {(p.sublayer, p.tap): n for f in self.flows.values() for p, n in f.order.items()}
        made = [
            Finding(place=place, op=op, kind=kind, text=text, steps=tuple(steps))
            for (place, op, kind, text), steps in self._found.items()
        ]
        return tuple(sorted(made, key=lambda f: order.get((f.place, f.op), -1)))

    def check_input(self, place: Place, index: int, actual: Sequence[Place | None]) -> bool:
        """Hold what an op reads against the graph; say whether it is the right tensor."""
        expected = self.flow.nodes[place].inputs[index]
        strangers = [p for p in actual if p not in (expected, None)]
        if not strangers or strangers[0] is None:
            return True
        source = strangers[0]
        for step in self.now.names:
            if expected in actual:
                self.unjudged.add((place, step))
            else:
                self.reads[place, index, step] = source
        self.find(*self._why(place, expected, source))
        return False

    def unjudge(self, place: Place) -> None:
        """Note that an op read what no tensor of its step is."""
        self.unjudged |= {(place, step) for step in self.now.names}

    def _why(self, place: Place, expected: Place, source: Place) -> tuple[Place, Kind, str]:
        kinds = {p: n.op.kind for p, n in self.flow.nodes.items()}
        if source == place:
            what = kinds[place]
            return place, "doubled", f"{what} is applied twice: {said(place, place)} reads itself"
        way = self.flow.between(source, expected) if source in kinds else []
        missing = [p for p in way if p not in self.done]
        if missing and missing == way:
            what = " and ".join(dict.fromkeys(kinds[p] for p in way))
            names = " and ".join(said(p, place) for p in way)
            verb = "is" if len(way) == 1 else "are"
            between = f"between {said(source, place)} and {said(place, place)}"
            return way[-1], "missing", f"no {what} {between}: {names} {verb} never called"
        kind: Kind = "stale" if source in self.flow.downstream(place) else "input"
        if source.tap == expected.tap and source.sublayer != expected.sublayer:
            kind = "cache" if kinds[place] in ("matmul_qk", "matmul_pv") else kind
        verb = "adds" if kinds[place] == "add" else "reads"
        names = f"{said(source, place)} in place of {said(expected, place)}"
        return place, kind, f"{said(place, place)} {verb} {names}"


def said(place: Place, at: Place) -> str:
    """A tensor's name as it is said at an op: without the sublayer, or the layer, of both."""
    if place.is_weight:
        return place.tap
    if place.tap == "output" and at.sublayer.endswith(".attention") and _feeds(place, at):
        return "the layer's input"
    if place.layer is None:
        return place.sublayer
    if place.layer != at.layer:
        return str(place)
    return place.tap if place.sublayer == at.sublayer else _role(place)


def _role(place: Place) -> str:
    """An op's name without its layer."""
    return str(place) if place.layer is None else str(place).split(".", 2)[2]


def _feeds(place: Place, at: Place) -> bool:
    """Whether a sublayer's output is what the layer of ``at`` is given."""
    if place.sublayer == "embedding":
        return at.layer == 0
    return place.sublayer.endswith(".mlp") and place.layer == (at.layer or 0) - 1
