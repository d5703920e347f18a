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
    oracle_dtype,
)
from goldenctl.golden.schema import SublayerInfo
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.model.rope import inv_freq
from goldenctl.model.tokens import Case
from goldenctl.reference.forward import Sink, State, run_sublayer, start
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
    """Run the reference over every case; return nanoseconds by tensor name."""
    loader = WeightLoader(recording.checkpoint, recording.dtype, recording.device)
    constants = _constants(recording)
    for name, table in constants.items():
        sink(f"constants/{name}", table, 0)
    states = [start(case, constants, recording.device) for case in recording.cases]
    oracle = _oracle(recording, sink)
    for state in states:
        _sink_inputs(state, sink)
    sublayers = computed_sublayers(recording.config, recording.selection)
    for index, sublayer in enumerate(sublayers):
        run_sublayer(sublayer, states, loader, sink, oracle)
        progress(index + 1, len(sublayers), sublayer.name)
    if oracle is not None:
        oracle.finish()
    return {name: ns for state in states for name, ns in state.times_ns.items()}


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
        "cases": [{"name": case.name, "text": case.text} for case in recording.cases],
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
    count = max(len(case.token_ids[0]) for case in recording.cases)
    frequencies, scaling = inv_freq(recording.config)
    positions = torch.arange(count, dtype=torch.float32)
    angles = positions[:, None] * torch.from_numpy(frequencies)  # rounds to float32
    tables = {"rope_cos": angles.cos() * scaling, "rope_sin": angles.sin() * scaling}
    dtype = TORCH_DTYPES[recording.dtype]
    return {name: table.to(recording.device, dtype) for name, table in tables.items()}


def _sink_inputs(state: State, sink: Sink) -> None:
    root = f"cases/{state.case.name}"
    sink(f"{root}/token_ids", state.hidden, 0)
    sink(f"{root}/steps/00/position_ids", state.constants["position_ids"], 0)


def _sublayer_infos(groups: Sequence[str], times_ns: dict[str, int]) -> list[SublayerInfo]:
    totals = dict.fromkeys(groups, 0)
    for name, ns in times_ns.items():
        group = name.rpartition("/")[0]
        if group in totals:
            totals[group] += ns
    return [SublayerInfo(group, ns) for group, ns in totals.items()]
