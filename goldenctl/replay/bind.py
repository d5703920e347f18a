"""The binding of a replay: which tensor of which sublayer is read from and written to
which bytes, in each replay mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.modes import BOTH
from goldenctl.golden.operands import added_mask, operand, past
from goldenctl.golden.schema import ALIGNMENT_BYTES, TensorInfo
from goldenctl.model import graph
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer
from goldenctl.ops.plan import (
    File,
    Load,
    Part,
    PlanOp,
    PlanSublayer,
    Store,
    SublayerBuilder,
    View,
)
from goldenctl.ops.table import OPS
from goldenctl.places import layer_of, paths_so_far, place_of, short_name, step_number
from goldenctl.replay.walk import Walk

# Computes a faulty op: (path of the sublayer, sublayer, op) -> its output.
Emulate = Callable[[str, Sublayer, Op], "np.ndarray"]


@dataclass(frozen=True)
class Source:
    """What is replayed: a golden, its model, and the sublayers chosen, by path, in order.

    ``checkpoint`` is None for a replay that computes nothing.
    """

    golden: GoldenFile
    config: ModelConfig
    checkpoint: Checkpoint | None
    sublayers: Mapping[str, Sublayer]


def choose_sublayers(
    golden: GoldenFile, config: ModelConfig, layers: frozenset[int] | None, *, fused: bool
) -> dict[str, Sublayer]:
    """Return the golden's sublayers by path, restricted to ``layers`` where they have one.

    Raises UsageError when the golden holds none of them.
    """
    by_step: dict[str, dict[str, Sublayer]] = {}
    chosen = {}
    for path in golden.sublayers:
        name = short_name(path)
        if layers is None or layer_of(name) in layers:
            step = place_of(path).step_path
            if step not in by_step:
                by_step[step] = {s.name: s for s in _decoder(golden, config, step)}
            sublayer = by_step[step][name]
            if fused:
                _refuse_hidden(golden, step, sublayer)
            chosen[path] = graph.with_fused_attention(sublayer) if fused else sublayer
    if not chosen:
        wanted = ", ".join(map(str, sorted(layers or ())))
        msg = f"{golden.path}: it holds none of the layers {wanted}"
        raise UsageError(msg)
    return chosen


def _decoder(golden: GoldenFile, config: ModelConfig, step: str) -> Iterable[Sublayer]:
    """The decoder's sublayers as a step of a golden has them."""
    head = f"{step}/lm_head/output"
    whole = head in golden.tensors and "token" in golden.tensors[head].dims
    return graph.decoder(
        config,
        logits="all" if whole else "last",
        past=step_number(step) > 0,
        masked=f"{step}/attention_mask" in golden.tensors,
        positions=int(golden.map(f"{step}/position_ids").max(initial=0)) + 1,
    )


def _refuse_hidden(golden: GoldenFile, step: str, sublayer: Sublayer) -> None:
    """Raise UsageError where attention hides more than the tokens to come."""
    hidden = "padding" if f"{step}/attention_mask" in golden.tensors else ""
    for op in sublayer.ops:
        tokens = int(golden.map(f"{step}/position_ids").max(initial=0)) + 1
        if 0 < op.attrs.get("window", 0) < tokens:
            hidden = f"more than {op.attrs['window']} tokens, which {sublayer.name} does not see"
    if hidden:
        msg = f"{golden.path}: {step} has {hidden}, which fused attention has no mask for"
        raise UsageError(msg, hint="replay it with --attention eager")


class Patches:
    """A side file with the tables and emulated outputs of faulty ops.

    ``emulate`` computes an op whose fault no engine has; it is called only for those.
    """

    def __init__(self, path: Path, emulate: Emulate) -> None:
        self.path = path
        self.emulated = emulate

    def append(self, array: np.ndarray) -> int:
        """Append an array's bytes; return their offset, a multiple of 64."""
        with self.path.open("ab") as file:
            file.write(b"\0" * (-file.tell() % ALIGNMENT_BYTES))
            offset = file.tell()
            file.write(np.ascontiguousarray(array).tobytes())
        return offset


class Binder:
    """Builds plan sublayers for one replay.

    ``offsets`` are the byte offsets in the run file by tensor name. In mode ``sublayer``
    only a sublayer's input comes from the golden, in ``op`` every op's inputs do, in
    ``op+sublayer`` a sublayer is walked over twice, once in each way, over weights that are
    loaded once; in ``chain`` a sublayer's input is what the one before it stored. ``grafts``
    name tensors that are taken from the golden instead of being computed.
    """

    def __init__(
        self,
        source: Source,
        *,
        mode: str,
        dtype: str,
        run_path: Path,
        offsets: Mapping[str, int],
        patches: Patches,
        grafts: frozenset[str] = frozenset(),
    ) -> None:
        self._source = source
        self._mode = mode
        self._dtype = dtype
        self._offsets = offsets
        self._patches = patches
        self._grafts = grafts
        self._files = [
            File(str(path), path.stat().st_size, write=write)
            for path, write in ((source.golden.path.resolve(), False), (run_path.resolve(), True))
        ]
        self._file_numbers: dict[Path, int] = {}
        self._windows: dict[tuple[str, str], tuple[tuple[int, ...], Load]] = {}
        self._given: list[str] = []  # tensors of the golden that the plan loads

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of the plan; complete once ``sublayers`` was called."""
        return tuple(
            File(file.path, Path(file.path).stat().st_size, write=file.write)
            for file in self._files
        )

    def sublayers(self) -> tuple[PlanSublayer, ...]:
        """Bind every sublayer. Raises DamagedError where what the golden gives is not what was
        recorded: the engine would be charged with it."""
        bound = tuple(self._bind(path, s) for path, s in self._source.sublayers.items())
        self._source.golden.verify_all(self._given)
        return bound

    def _bind(self, path: str, sublayer: Sublayer) -> PlanSublayer:
        builder = SublayerBuilder(path, self._dtype)
        walk = Walk(path, sublayer, builder, isolated=self._mode in ("op", BOTH))
        self._walk(walk)
        if self._mode == BOTH and len(sublayer.ops) > 1:
            self._walk(walk.composed())
        return builder.build()

    def _walk(self, walk: Walk) -> None:
        """Bind every op of a sublayer, in one walk over it."""
        for op in walk.sublayer.ops:
            inputs = tuple(self._resolve(walk, op, name) for name in graph.plan_inputs(op))
            walk.given[op.output] = inputs
            known = walk.known(op, replaced=self._is_replaced(walk.path, op))
            walk.yielded[op.output] = (
                self._computed(walk, op, inputs) if known is None else self._again(walk, op, known)
            )

    def _resolve(self, walk: Walk, op: Op, name: str) -> View:
        """Return the view of what an op reads: of what the walk has yielded, or loaded."""
        if name in walk.yielded and not walk.isolated:
            return walk.yielded[name]
        own = graph.own_name(name)
        if own != name and not walk.isolated:
            return self._joined_past(walk, op, own, self._resolve(walk, op, own))
        if name not in walk.loaded:
            load = self._load_activation if own == name else self._load_past
            walk.loaded[name] = load(walk.builder, walk.path, own)
        return walk.loaded[name]

    def _computed(self, walk: Walk, op: Op, inputs: tuple[View, ...]) -> View:
        builder, path, tap = walk.builder, walk.path, walk.name(op.output)
        if op.kind == "expert_linear":
            weights: tuple[View, ...] = (self._load_stack(builder, walk.loaded, op),)
        else:
            weights = tuple(self._load_weight(builder, walk.loaded, name) for name in op.weights)
        shape = self._shape(path, walk.sublayer, op)
        out = builder.tensor(tap, shape, store=self._store(path, tap))
        replacement = self._replacement(path, walk.sublayer, op)
        if replacement is None:
            builder.ops += OPS[op.kind].lower(tap, out, inputs, weights, op.attrs)
        else:
            source = builder.tensor(f"{tap}#replaced", shape, load=replacement)
            builder.ops += OPS["copy"].lower(tap, out, (source,), (), {})
        return out

    def _again(self, walk: Walk, op: Op, known: View) -> View:
        """Take what an earlier walk has yielded; a copy of it where it is stored once more."""
        tap = walk.name(op.output)
        store = self._store(walk.path, tap)
        if store is None:
            return known
        out = walk.builder.tensor(tap, known.shape, store=store)
        walk.builder.ops += OPS["copy"].lower(tap, out, (known,), (), {})
        return out

    def _shape(self, path: str, sublayer: Sublayer, op: Op) -> tuple[int, ...]:
        widths = []
        for at in paths_so_far(path):
            batch, token = self._source.golden.info(graph.recorded_path(at, "position_ids")).shape
            widths.append(token)
        sizes = graph.sizes(self._source.config, batch, token, sum(widths[:-1]))
        return tuple(sizes[label] for label in sublayer.dims(op.output))

    def _store(self, path: str, tap: str) -> Store | None:
        links = {tap: link for link, tap in graph.CACHE_LINKS.items()}
        for name in (f"{path}/{tap}", f"{path}/{links.get(tap, tap)}"):
            if name in self._offsets:
                return Store(1, self._offsets[name])
        return None

    def _is_replaced(self, path: str, op: Op) -> bool:
        return f"{path}/{op.output}" in self._grafts or "fault" in op.attrs

    def _replacement(self, path: str, sublayer: Sublayer, op: Op) -> Load | None:
        """Where an op's output comes from when it is not computed: a graft or an emulation."""
        name = f"{path}/{op.output}"
        if name in self._grafts:
            return self._golden(self._source.golden.info(name))
        if "fault" in op.attrs:
            return self._patch(self._patches.emulated(path, sublayer, op))
        return None

    def _patch(self, array: np.ndarray) -> Load:
        """Put bytes beside the golden's; they are in the plan's dtype."""
        self._patches.path.touch()
        number = self._file_number(self._patches.path)
        return Load(number, self._patches.append(array), self._dtype)

    def _load_activation(self, builder: SublayerBuilder, path: str, name: str) -> View:
        if name.startswith(graph.WINDOW):
            return self._load_window(builder, path, name)
        found = operand(self._source.golden, path, name)
        if found.table is not None:
            rounded = found.table.astype(DTYPES[self._dtype].numpy)
            return builder.tensor(name, rounded.shape, load=self._patch(rounded))
        if name == "attention_mask":
            added = added_mask(found.array(), self._dtype)
            return builder.tensor(name, added.shape, load=self._patch(added))
        (info,) = found.parts
        load = self._source_of(info)
        dtype = info.dtype if info.dtype.startswith("int") else self._dtype
        return builder.tensor(name, info.shape, dtype=dtype, load=load)

    def _load_window(self, builder: SublayerBuilder, path: str, name: str) -> View:
        """What is added to scores to hide the tokens before a window, once for all layers."""
        key = (place_of(path).step_path, name)
        if key not in self._windows:
            added = added_mask(operand(self._source.golden, path, name).array(), self._dtype)
            self._windows[key] = (added.shape, self._patch(added))
        shape, load = self._windows[key]
        return builder.tensor(name, shape, load=load)

    def _source_of(self, info: TensorInfo) -> Load:
        """Where an activation comes from: in a chain, what the run itself has written."""
        if self._mode == "chain" and info.name in self._offsets:
            return Load(1, self._offsets[info.name], self._dtype)
        return self._golden(info)

    def _golden(self, info: TensorInfo) -> Load:
        self._given.append(info.name)
        return Load(0, info.offset, info.dtype)

    def _joined_past(self, walk: Walk, op: Op, name: str, own: View) -> View:
        """Put the step's own keys or values, just computed, after those of earlier steps."""
        joined = self._load_past(walk.builder, walk.path, name, without=own.shape[1])
        tap, tail = walk.name(op.output), joined.tail(1, own.shape[1])
        walk.builder.ops.append(PlanOp("rearrange", tap, tail, (own,)))
        return joined

    def _load_past(
        self, builder: SublayerBuilder, path: str, name: str, *, without: int = 0
    ) -> View:
        """A buffer [B, T, K, D] of all steps so far; the last ``without`` tokens stay empty."""
        infos = past(self._source.golden, path, name)
        total = sum(info.shape[1] for info in infos)
        batch, _, *inner = infos[0].shape
        row = math.prod(inner)
        parts, first = [], 0
        for info in infos[:-1] if without else infos:
            source, count = self._source_of(info), info.shape[1] * row
            step_bytes = count * DTYPES[source.dtype].itemsize
            parts += [
                Part(source.file, source.offset + b * step_bytes, source.dtype,
                     b * total * row + first, count)
                for b in range(batch)
            ]  # fmt: skip
            first += count
        return builder.tensor(f"past+{name}", (batch, total, *inner), parts=tuple(parts))

    def _load_weight(self, builder: SublayerBuilder, loaded: dict[str, View], name: str) -> View:
        if name not in loaded:
            assert self._source.checkpoint is not None
            weight = self._source.checkpoint.tensor(name)
            number = self._file_number(weight.path)
            load = Load(number, weight.offset, weight.dtype)
            loaded[name] = builder.tensor(name, weight.shape, load=load)
        return loaded[name]

    def _load_stack(self, builder: SublayerBuilder, loaded: dict[str, View], op: Op) -> View:
        """Matrices of all experts as one buffer [E, N, M], wherever each of them lies."""
        key = "+".join(op.weights)
        if key not in loaded:
            assert self._source.checkpoint is not None
            found = [self._source.checkpoint.tensor(name) for name in op.weights]
            count = math.prod(found[0].shape)
            parts = tuple(
                Part(self._file_number(w.path), w.offset, w.dtype, number * count, count)
                for number, w in enumerate(found)
            )
            shape = (len(found), *found[0].shape)
            loaded[key] = builder.tensor(op.weights[0], shape, parts=parts)
        return loaded[key]

    def _file_number(self, path: Path) -> int:
        if path not in self._file_numbers:
            self._file_numbers[path] = len(self._files)
            self._files.append(File(str(path.resolve()), path.stat().st_size, write=False))
        return self._file_numbers[path]


def without_stores(sublayers: Iterable[PlanSublayer]) -> tuple[PlanSublayer, ...]:
    """Return sublayers that write nothing: what a debugger may run again and again."""
    return tuple(
        PlanSublayer(
            s.name,
            tuple(type(t)(t.name, t.dtype, t.shape, t.load, None, t.parts) for t in s.tensors),
            s.ops,
        )
        for s in sublayers
    )
