"""The recording of a golden: lay out, run the reference, store, seal."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from goldenctl.golden.journal import Journal
from goldenctl.golden.layout import (
    Layout,
    computed_sublayers,
    golden_layout,
    ids_path,
)
from goldenctl.golden.schema import SublayerInfo
from goldenctl.golden.selection import Selection
from goldenctl.golden.steps import Step, position_count, steps
from goldenctl.golden.times import with_groups
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Sublayer, constants, table_dtype
from goldenctl.model.quantised import scheme_in
from goldenctl.model.rope import inv_freq
from goldenctl.places import place
from goldenctl.reference.clock import Clock
from goldenctl.reference.device import check_device
from goldenctl.reference.forward import Best, Cache, Observers, Sink, State, run_sublayer, start
from goldenctl.reference.keep import Keeper, Kept
from goldenctl.reference.memory import kept_memory
from goldenctl.reference.oracle import Oracle
from goldenctl.reference.sink import TensorSink
from goldenctl.reference.watch import Watch
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader

# Receives (sublayers finished, sublayers in all, name of the one just finished).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Recording:
    """What is to be recorded: a model, its inputs, how it computes and what is kept.

    ``source`` is the model as a recipe names it, when that is not the checkpoint's folder.
    ``repeat`` is how often each op is timed.
    """

    checkpoint: Checkpoint
    config: ModelConfig
    cases: Sequence[Case]
    dtype: str = "float32"
    device: str = "cpu"
    selection: Selection = field(default_factory=Selection)
    source: str = ""
    repeat: int = 1

    def layout(self) -> Layout:
        return golden_layout(self.config, self.cases, dtype=self.dtype, selection=self.selection)


@kept_memory()
def record(
    recording: Recording,
    path: Path,
    progress: Progress = lambda *_: None,
    *,
    resume: bool = False,
) -> str:
    """Run the reference and write the golden ``path``; return what the ``Watch`` found.

    With ``resume`` go on from what an interrupted recording left, and leave such a thing.
    Raises UsageError when the disk or folder does not allow it, MissingError when the
    device is not there; in every case whatever stood at ``path`` is untouched.
    """
    check_device(recording.device)
    progress(0, _total(recording), "")
    layout = recording.layout()
    made = recipe(recording)
    with Journal(path, made) if resume else nullcontext() as journal:
        open_writer = partial(
            GoldenWriter,
            path,
            kind="golden",
            recipe=made,
            tensors=layout.tensors,
            links=layout.links,
            groups=layout.groups,
            journal=journal,
        )
        clock = Clock(recording.repeat)
        with TensorSink(open_writer, layout.tensors) as sink:
            keeper = Keeper(journal, sink, clock) if journal is not None else None
            forward = Forward(recording, keeper.put if keeper else sink.put, clock)
            forward.run(progress, keeper)
            found = forward.watch.found
            sink.finish().seal(
                recipe={**made, "not_finite": found} if found else None,
                digests=sink.digests,
                times_ns=clock.times_ns,
                iqr_ns=with_groups(clock.iqr_ns),
                sublayers=[
                    SublayerInfo(group, ns)
                    for group, ns in _sums(layout.groups, clock.times_ns).items()
                ],
            )
    return found


class Forward:
    """The reference on its way over every step of every case.

    Weights are streamed once for all steps whose tokens are known, and once more for each
    token that has to be generated first.
    """

    def __init__(self, recording: Recording, sink: Sink, clock: Clock) -> None:
        self._recording = recording
        self._sink = sink
        self._clock = clock
        self._loader = WeightLoader(recording.checkpoint, recording.dtype, recording.device)
        self._constants = _constants(recording)
        self._oracles = _oracles(recording, sink)
        self.watch = Watch(recording.checkpoint, recording.dtype, recording.device)
        self._caches: dict[str, Cache] = {case.name: {} for case in recording.cases}
        self._tokens: dict[str, torch.Tensor] = {}  # by case, the most likely next ones [B]

    def run(self, progress: Progress, keeper: Keeper | None) -> None:
        """Run what ``keeper`` does not say to be finished, and note it there."""
        passes, total = _passes(self._recording.cases), _total(self._recording)
        kept = keeper.resume() if keeper is not None else None
        done = 0 if kept is None else kept.count
        if kept is None:
            self._sink_constants()
        else:
            self._restore(kept.tensors)
            progress(done, total, "")
        for number, wave in enumerate(passes):
            places = self._sublayers(wave[0])
            first = number * len(places)
            if done >= first + len(places):
                continue
            states = self._start(wave, kept if done > first else None)
            for at in range(max(0, done - first), len(places)):
                observers = Observers((self.watch, *self._oracles))
                run_sublayer(at, states, self._loader, self._sink, observers)
                self._choose_tokens(states)
                count = first + at + 1
                if keeper is not None and keeper.due():
                    keeper.finished(count, self._state(states))
                progress(count, total, places[at].name)
        for oracle in self._oracles:
            oracle.finish()

    def _sublayers(self, step: Step) -> list[Sublayer]:
        return computed_sublayers(self._recording.config, self._recording.selection, step)

    def _sink_constants(self) -> None:
        for name, table in self._constants.items():
            self._sink(f"constants/{name}", table, 0)
        for case in self._recording.cases:
            ids = torch.tensor(case.token_ids, dtype=torch.int32)
            self._sink(f"cases/{case.name}/token_ids", ids, 0)

    def _start(self, wave: Sequence[Step], kept: Kept | None) -> list[State]:
        """Return the states of a pass: before its embedding, or as they were kept."""
        states = []
        for number, step in enumerate(wave):
            name = step.case.name
            ids = self._ids(step)
            cache = self._caches[name]
            state = start(step, self._sublayers(step), self._constants, ids, cache, self._clock)
            if kept is None:
                _sink_inputs(state, self._sink)
            else:
                _restore_state(state, number, kept.tensors, self._recording.device)
            states.append(state)
        return states

    def _ids(self, step: Step) -> torch.Tensor:
        """The step's token ids [B, S]: known, or what the step before found most likely."""
        if not step.is_generated:
            return torch.from_numpy(step.known_ids()).to(self._recording.device)
        return self._tokens[step.case.name][:, None].int()

    def _choose_tokens(self, states: Sequence[State]) -> None:
        for state in states:
            if state.best is not None:
                self._tokens[state.step.case.name] = state.best.token

    def _state(self, states: Sequence[State]) -> dict[str, torch.Tensor]:
        """Everything that sublayers to come read, by name."""
        caches = {f"{c}//{k}": v for c, cache in self._caches.items() for k, v in cache.items()}
        tensors = {
            **{f"token//{case}": value for case, value in self._tokens.items()},
            **{f"cache//{key}": value for key, value in caches.items()},
            **{f"watch//{name}": value for name, value in self.watch.state().items()},
            **{
                f"oracle//{number}//{name}": value
                for number, oracle in enumerate(self._oracles)
                for name, value in oracle.state().items()
            },
        }
        for number, state in enumerate(states):
            tensors[f"hidden//{number}"] = state.hidden
            if state.best is not None:
                tensors[f"logit//{number}"] = state.best.logit
                tensors[f"best//{number}"] = state.best.token
        return tensors

    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Carry on what ``_state`` returned, but for the states themselves."""
        device = self._recording.device
        for name, value in tensors.items():
            kind, *keys = name.split("//")
            if kind == "token":
                self._tokens[keys[0]] = value.to(device)
            elif kind == "cache":
                self._caches[keys[0]][keys[1]] = value.to(device)
            elif kind == "watch":
                self.watch.restore({keys[0]: value})
        for number, oracle in enumerate(self._oracles):
            prefix = f"oracle//{number}//"
            mine = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            oracle.restore(mine, device)


def _restore_state(
    state: State, number: int, tensors: Mapping[str, torch.Tensor], device: str
) -> None:
    state.hidden = tensors[f"hidden//{number}"].to(device)
    if f"best//{number}" in tensors:
        logit, token = (tensors[f"{kind}//{number}"].to(device) for kind in ("logit", "best"))
        state.best = Best(logit, token)


def _passes(cases: Sequence[Case]) -> list[list[Step]]:
    """Return the steps of each pass over the weights: a generated token opens the next one."""
    passes: list[list[Step]] = [[]]
    for case in cases:
        number = 0
        for step in steps(case):
            number += step.is_generated
            passes += [[]] if number == len(passes) else []
            passes[number].append(step)
    return passes


def _total(recording: Recording) -> int:
    """How many sublayers run: those of a pass, once for each pass over the weights."""
    passes = _passes(recording.cases)
    return len(passes) * len(
        computed_sublayers(recording.config, recording.selection, passes[0][0])
    )


def _oracles(recording: Recording, sink: Sink) -> list[Oracle]:
    """One for the recorded dtype and one for each further one, if budgets are wanted."""
    selection = recording.selection
    if selection.oracle == "none":
        return []
    made = []
    for dtype in (recording.dtype, *selection.budget_dtypes):
        native = dtype == recording.dtype
        made.append(
            Oracle(
                recording.checkpoint,
                dtype,
                recording.device,
                sink,
                keep=native and selection.oracle == "keep",
                fused=selection.has_fused_budget,
                folder="" if native else f"{dtype}/",
            )
        )
    return made


def recipe(recording: Recording) -> dict[str, Any]:
    """Everything that is needed to record the same golden again, and to judge a change."""
    return {
        "model": {
            "path": recording.source or str(recording.checkpoint.folder),
            "fingerprint": recording.checkpoint.fingerprint(),
            "config": recording.config.to_dict(),
            **({"quantised": scheme} if (scheme := scheme_in(recording.checkpoint.folder)) else {}),
        },
        "cases": [case.to_recipe() for case in recording.cases],
        "dtype": recording.dtype,
        **recording.selection.to_recipe(),
        "reference": {
            "implementation": "torch",
            "attention": "eager",
            "device": recording.device,
            "torch": torch.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
    }


def _constants(recording: Recording) -> dict[str, torch.Tensor]:
    """The rotary tables [P, R/2], by torch's own cosine and sine, as the model has them."""
    dtype, tables = TORCH_DTYPES[table_dtype(recording.config, recording.dtype)], {}
    positions = torch.arange(position_count(recording.cases), dtype=torch.float32)
    for name in constants(recording.config):
        frequencies, scaling = inv_freq(recording.config, name)
        angles = positions[:, None] * torch.from_numpy(frequencies)  # rounds to float32
        table = (angles.cos() if name.endswith("_cos") else angles.sin()) * scaling
        tables[name] = table.to(recording.device, dtype)
    return tables


def _sink_inputs(state: State, sink: Sink) -> None:
    step = state.step
    if not step.is_prompt:
        sink(ids_path(step), state.hidden, 0)
    for name in ("position_ids", "attention_mask"):
        if name in state.constants:
            sink(f"{step.path}/{name}", state.constants[name], 0)


def _sums(groups: Sequence[str], by_tensor: Mapping[str, int]) -> dict[str, int]:
    """Add up what was measured of each sublayer's tensors; none of those not kept."""
    totals = dict.fromkeys(groups, 0)
    for name, value in by_tensor.items():
        group = place(name).group
        if group in totals:
            totals[group] += value
    return totals
