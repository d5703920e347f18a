"""Owns the recording of a golden: lay out, run the reference, store, seal."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from goldenctl.errors import MissingError, UsageError
from goldenctl.golden.layout import (
    Layout,
    Selection,
    computed_sublayers,
    golden_layout,
    ids_path,
    oracle_dtype,
)
from goldenctl.golden.schema import SublayerInfo
from goldenctl.golden.steps import Step, position_count, steps
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.rope import inv_freq
from goldenctl.reference.forward import Cache, Sink, State, run_sublayer, start
from goldenctl.reference.oracle import Oracle
from goldenctl.reference.sink import TensorSink
from goldenctl.reference.weights import TORCH_DTYPES, WeightLoader

# Receives (sublayers finished, sublayers in all, name of the one just finished).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Recording:
    """What is to be recorded: a model, its inputs, how it computes and what is kept.

    ``source`` is the model as a recipe names it, when that is not the checkpoint's folder.
    """

    checkpoint: Checkpoint
    config: ModelConfig
    cases: Sequence[Case]
    dtype: str = "float32"
    device: str = "cpu"
    selection: Selection = field(default_factory=Selection)
    source: str = ""

    def layout(self) -> Layout:
        return golden_layout(self.config, self.cases, dtype=self.dtype, selection=self.selection)


def record(recording: Recording, path: Path, progress: Progress = lambda *_: None) -> None:
    """Run the reference and write the golden ``path``.

    Raises UsageError when the disk or folder does not allow it, MissingError when the
    device is not there; in every case whatever stood at ``path`` is untouched.
    """
    check_device(recording.device)
    layout = recording.layout()
    open_writer = partial(
        GoldenWriter,
        path,
        kind="golden",
        recipe=recipe(recording),
        tensors=layout.tensors,
        links=layout.links,
        groups=layout.groups,
    )
    with TensorSink(open_writer, (spec.name for spec in layout.tensors)) as sink:
        times_ns = forward(recording, sink.put, progress)
        sink.finish().seal(
            digests=sink.digests,
            times_ns=times_ns,
            sublayers=_sublayer_infos(layout.groups, times_ns),
        )


def forward(recording: Recording, sink: Sink, progress: Progress) -> dict[str, int]:
    """Run the reference over every step of every case; return nanoseconds by tensor name.

    Weights are streamed once for all steps whose tokens are known, and once more for each
    token that has to be generated first.
    """
    loader = WeightLoader(recording.checkpoint, recording.dtype, recording.device)
    constants = _constants(recording)
    for name, table in constants.items():
        sink(f"constants/{name}", table, 0)
    for case in recording.cases:
        sink(f"cases/{case.name}/token_ids", torch.tensor(case.token_ids, dtype=torch.int32), 0)
    oracle = _oracle(recording, sink)
    caches: dict[str, Cache] = {case.name: {} for case in recording.cases}
    before: dict[str, State] = {}
    passes = _passes(recording.cases)
    times_ns: dict[str, int] = {}
    for number, wave in enumerate(passes):
        states = []
        for step in wave:
            name = step.case.name
            ids = _ids(step, before.get(name), recording.device)
            sublayers = computed_sublayers(recording.config, recording.selection, step)
            states.append(start(step, sublayers, constants, ids, caches[name]))
            _sink_inputs(states[-1], sink)
        count = len(states[0].sublayers)
        for place, sublayer in enumerate(states[0].sublayers):
            run_sublayer(place, states, loader, sink, oracle)
            progress(number * count + place + 1, len(passes) * count, sublayer.name)
        before = {state.step.case.name: state for state in states}
        times_ns |= {name: ns for state in states for name, ns in state.times_ns.items()}
    if oracle is not None:
        oracle.finish()
    return times_ns


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


def _ids(step: Step, before: State | None, device: str) -> torch.Tensor:
    """The step's token ids [B, S]: known, or what the step before found most likely."""
    if not step.is_generated:
        return torch.from_numpy(step.known_ids()).to(device)
    assert before is not None
    assert before.best is not None, "a step that generates has logits"
    return before.best.token[:, None].int()


def _oracle(recording: Recording, sink: Sink) -> Oracle | None:
    selection, dtype = recording.selection, recording.dtype
    if selection.oracle == "none":
        return None
    wide = oracle_dtype(dtype)
    loader = WeightLoader(recording.checkpoint, wide, recording.device, through=dtype)
    return Oracle(loader, dtype, sink, keep=selection.oracle == "keep")


def recipe(recording: Recording) -> dict[str, Any]:
    """Everything that is needed to record the same golden again, and to judge a change."""
    selection = recording.selection
    return {
        "model": {
            "path": recording.source or str(recording.checkpoint.folder),
            "fingerprint": recording.checkpoint.fingerprint(),
            "config": recording.config.to_dict(),
        },
        "cases": [case.to_recipe() for case in recording.cases],
        "dtype": recording.dtype,
        "taps": selection.taps,
        "layers": None if selection.layers is None else sorted(selection.layers),
        "logits": selection.logits,
        "oracle": selection.oracle,
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


def check_device(device: str) -> None:
    """Raise unless torch can compute on ``device`` (``cpu``, ``cuda`` or ``cuda:n``)."""
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        msg = f"device {device!r} is not known, expected cpu or cuda[:n]"
        raise UsageError(msg) from error
    if kind.type == "cpu":
        return
    if kind.type != "cuda":
        msg = f"device {device!r} is not supported, expected cpu or cuda[:n]"
        raise UsageError(msg)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (kind.index or 0) >= count:
        msg = f"device {device}: torch {torch.__version__} sees {count} CUDA devices"
        raise MissingError(
            msg,
            hint="use --device cpu, or install a CUDA build of torch",
        )


def _constants(recording: Recording) -> dict[str, torch.Tensor]:
    """The rotary tables [P, D/2], by torch's own cosine and sine, as the model has them."""
    count = position_count(recording.cases)
    frequencies, scaling = inv_freq(recording.config)
    positions = torch.arange(count, dtype=torch.float32)
    angles = positions[:, None] * torch.from_numpy(frequencies)  # rounds to float32
    tables = {"rope_cos": angles.cos() * scaling, "rope_sin": angles.sin() * scaling}
    dtype = TORCH_DTYPES[recording.dtype]
    return {name: table.to(recording.device, dtype) for name, table in tables.items()}


def _sink_inputs(state: State, sink: Sink) -> None:
    step = state.step
    if not step.is_prompt:
        sink(ids_path(step), state.hidden, 0)
    for name in ("position_ids", "attention_mask"):
        if name in state.constants:
            sink(f"{step.path}/{name}", state.constants[name], 0)


def _sublayer_infos(groups: Sequence[str], times_ns: dict[str, int]) -> list[SublayerInfo]:
    totals = dict.fromkeys(groups, 0)
    for name, ns in times_ns.items():
        group = name.rpartition("/")[0]
        if group in totals:
            totals[group] += ns
    return [SublayerInfo(group, ns) for group, ns in totals.items()]
