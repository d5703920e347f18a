"""The recording of a golden of modules: run with hooks, store while it runs, name at the end."""

from __future__ import annotations

import platform
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goldenctl.errors import GoldenctlError, UsageError
from goldenctl.golden.calls import call_name
from goldenctl.golden.room import Room
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.places import step_path
from goldenctl.reference.memory import kept_memory
from goldenctl.reference.modules.budgets import Held, Oracle
from goldenctl.reference.modules.chains import Chains
from goldenctl.reference.modules.subject import Subject, fingerprint, stored_dtype
from goldenctl.reference.modules.values import Given, tensors_of
from goldenctl.reference.modules.watch import Call, Chosen, Watch, choose, run_steps
from goldenctl.reference.sink import RoomSink

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ModuleRecording:
    """What is to be recorded of a subject: modules that match a pattern, at most ``depth`` below
    the model; ``oracle`` adds budgets."""

    subject: Subject
    match: tuple[str, ...] = ()
    depth: int | None = None
    oracle: str = "none"
    device: str = "cpu"


@dataclass
class _Stored:
    """A tensor of a call: its name in it, and the key under which the sink has it."""

    tap: str
    key: str
    role: str
    own: bool = True


@dataclass
class _Done:
    """A call as it was recorded."""

    step: str
    call: Call
    tensors: list[_Stored] = field(default_factory=list)
    held: Held = field(default_factory=Held)


@kept_memory()
def record_modules(
    recording: ModuleRecording, path: Path, progress: Progress = lambda *_: None
) -> tuple[str, ...]:
    """Run the subject's calls and write the golden ``path``; return the names of modules with
    parameters that were not called.

    Raises UsageError where the module raises, or yields what no golden can hold; whatever stood
    at ``path`` is then untouched.
    """
    subject = recording.subject
    chosen = choose(subject.module, recording.match, recording.depth)
    with RoomSink(path) as sink:
        recorder = Recorder(sink)
        watch = Watch(chosen, recorder)
        if recording.oracle != "none":
            recorder.oracle = Oracle(subject.module, watch)
        with torch.no_grad(), watch.installed():
            for case, calls in subject.calls.items():
                for number in _stepping(watch, subject, calls):
                    recorder.step = step_path(case, number)
                    progress(len(recorder.done), 0, recorder.step)
        _write_cases(sink, subject)
        if recorder.oracle is not None:
            with Chains(subject, chosen, recorder.roots) as chains:
                _write_budgets(sink, recorder.done, chains, chosen.root)
        _seal(sink, recording, chosen, recorder)
    return _silent(chosen, recorder.done)


def _stepping(watch: Watch, subject: Subject, calls: Any) -> Iterator[int]:
    """Run a case's steps; an error of the module becomes one line."""
    try:
        yield from run_steps(watch, subject.module, calls)
    except (GoldenctlError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        name = type(subject.module).__name__
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        message = f"{name}: its forward pass raised {said}"
        raise UsageError(message, hint="call it with the same inputs outside goldenctl") from error


class Recorder:
    """Stores what every call is given and yields. A tensor that was stored already, and was not
    changed since, is stored once."""

    def __init__(self, sink: RoomSink) -> None:
        self._sink = sink
        self.step = ""
        self.oracle: Oracle | None = None
        self.done: list[_Done] = []
        self.roots: dict[str, dict[str, Tensor]] = {}
        self._open: list[_Done] = []
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}

    def before(self, call: Call, module: nn.Module, given: Given) -> None:
        if not self._open:
            self._seen.clear()
        entry = _Done(self.step, call)
        # What objects such as a cache hold is kept once a step: what the model itself is given.
        for path, tensor in given.tensors(objects=not self._open):
            self._keep(entry, path, tensor, "input")
        if self.oracle is not None:
            self.oracle.before(given)
            if not self._open:
                self.roots[self.step] = {path: tensor.clone() for path, tensor in given.tensors()}
        self._open.append(entry)

    def after(self, call: Call, module: nn.Module, given: Given, output: Any) -> None:
        entry = self._open.pop()
        for path, tensor in tensors_of(output, "output"):
            self._keep(entry, path, tensor, "output")
        if self.oracle is not None:
            entry.held = self.oracle.after(call, module, output)
        self.done.append(entry)

    def _keep(self, entry: _Done, tap: str, tensor: Tensor, role: str) -> None:
        """Store a tensor of a call, copied: what changes it in place later does not show."""
        if not tensor.numel():
            return
        stored = self._known(tensor) if role == "input" else None
        if stored is not None:
            entry.tensors.append(_Stored(tap, stored, role, own=False))
            return
        key = f"{entry.step}/{entry.call.module}@{entry.call.number}/{tap}"
        dtype = stored_dtype(tensor, f"{entry.call.module}: {tap}")
        copy = copied(tensor, dtype)
        dims = tuple(f"dim{axis}" for axis in range(copy.dim()))
        op = entry.call.kind if role == "output" else ""
        self._sink.add(TensorSpec(key, dtype, tuple(copy.shape), dims, role, op), copy)
        entry.tensors.append(_Stored(tap, key, role))
        version = _version(tensor)
        if version is not None:
            self._seen[id(tensor)] = (weakref.ref(tensor), version, key)

    def _known(self, tensor: Tensor) -> str | None:
        """Return the key of a tensor that was stored with the values that it has now."""
        reference, version, key = self._seen.get(id(tensor), (None, -1, ""))
        same = reference is not None and reference() is tensor and _version(tensor) == version
        return key if same else None


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place; None where torch does not count."""
    return None if tensor.is_inference() else tensor._version


def copied(tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor's values on the host as they are now; a scalar as one element."""
    value = tensor.detach()
    value = value.reshape(1) if value.dim() == 0 else value
    target = getattr(torch, dtype)
    return value.to("cpu", target, copy=True, memory_format=torch.contiguous_format)


def _write_budgets(sink: RoomSink, done: Sequence[_Done], chains: Chains, root: str) -> None:
    """Store the budgets of every call: of it alone, which counts as its op and as its sublayer,
    and along the whole model."""
    room = sink.settle()
    for entry in done:
        outputs = {each.tap: each for each in entry.tensors if each.role == "output"}
        every = {tap: partial(_read, room, each.key) for tap, each in outputs.items()}
        place = (entry.step, entry.call.module, entry.call.number)
        if entry.call.module == root:
            entry.held = chains.of_model(place, every)
        recorded = {tap: read for tap, read in every.items() if tap in entry.held.budgets}
        for tap, chained in chains.budgets(place, recorded).items():
            rows = entry.held.budgets[tap]
            scopes = torch.stack([rows, rows, chained])
            key = f"{outputs[tap].key}.budget"
            dims = ("scope", *(f"dim{axis}" for axis in range(scopes.dim() - 2)), "statistic")
            spec = TensorSpec(key, "float32", tuple(scopes.shape), dims, "budget", entry.call.kind)
            sink.add(spec, scopes)
            entry.tensors.append(_Stored(f"budget/{tap}", key, "budget"))
        lacking = recorded.keys() - {each.tap.removeprefix("budget/") for each in entry.tensors}
        if lacking and not entry.held.unheld:
            entry.held.unheld = chains.failed or "yields other shapes along the model in float64"


def _read(room: Room, key: str) -> Tensor:
    """Return a tensor that was written to the room."""
    spec = room.tensors[key]
    with room.temporary_path.open("rb") as file:
        file.seek(room.offsets[key])
        data = bytearray(file.read(spec.nbytes))
    return torch.frombuffer(data, dtype=getattr(torch, spec.dtype)).reshape(spec.shape)


def _write_cases(sink: RoomSink, subject: Subject) -> None:
    for case in subject.cases:
        rows = case.get("token_ids")
        if rows:
            ids = torch.tensor(rows, dtype=torch.int32)
            name = f"cases/{case['name']}/token_ids"
            dims = ("batch", "token")
            sink.add(TensorSpec(name, "int32", tuple(ids.shape), dims, "input"), ids)


def _seal(sink: RoomSink, recording: ModuleRecording, chosen: Chosen, recorder: Recorder) -> None:
    """Give every tensor its name, and the file."""
    named = Names(recorder.done)
    keys = {spec.name: spec.name for spec in sink.specs.values() if "/steps/" not in spec.name}
    links: dict[str, str] = {}
    for entry, group in named.groups():
        for stored in entry.tensors:
            if stored.own:
                keys[stored.key] = f"{group}/{stored.tap}"
    for entry, group in named.groups():
        for stored in entry.tensors:
            if not stored.own:
                links[f"{group}/{stored.tap}"] = keys[stored.key]
            for other in named.further(entry, chosen.shared) if "/" not in stored.tap else ():
                links[f"{other}/{stored.tap}"] = keys[stored.key]
    room = sink.finish()
    room.name(keys)
    specs = [replace(sink.specs[key], name=name) for key, name in keys.items()]
    times_ns = {group: entry.call.time_ns for entry, group in named.groups()}
    unheld = {group: entry.held.unheld for entry, group in named.groups() if entry.held.unheld}
    with GoldenWriter(
        room.path,
        kind="golden",
        recipe=recipe(recording, chosen, unheld),
        tensors=specs,
        links=links,
        groups=list(times_ns),
        room=room,
    ) as writer:
        writer.seal(
            digests={name: sink.digests[key] for key, name in keys.items()},
            sublayers=[SublayerInfo(group, ns) for group, ns in times_ns.items()],
        )


class Names:
    """The groups of calls: a module that was called several times in a step has numbers."""

    def __init__(self, done: Sequence[_Done]) -> None:
        self._done = done
        self._counts = Counter((entry.step, entry.call.module) for entry in done)

    def groups(self) -> Iterator[tuple[_Done, str]]:
        """Yield every call in order of completion, with its group."""
        for entry in self._done:
            yield entry, self._group(entry, entry.call.module)

    def further(self, entry: _Done, shared: Mapping[str, str]) -> Iterator[str]:
        """Yield the groups that a call has under further names of its module."""
        for other, name in shared.items():
            if name == entry.call.module:
                yield self._group(entry, other)

    def _group(self, entry: _Done, module: str) -> str:
        count = self._counts[entry.step, entry.call.module]
        return f"{entry.step}/{call_name(module, entry.call.number, count)}"


def recipe(recording: ModuleRecording, chosen: Chosen, unheld: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is needed to record the same golden again, and to judge a change."""
    subject = recording.subject
    return {
        "model": {
            "path": str(subject.source.get("path", subject.source.get("function", ""))),
            "fingerprint": fingerprint(subject.module),
            "config": {"model_type": chosen.root},
        },
        "modules": {
            **{key: value for key, value in subject.source.items() if key != "path"},
            "root": chosen.root,
            **({"match": list(recording.match)} if recording.match else {}),
            **({} if recording.depth is None else {"depth": recording.depth}),
            **({"shared": dict(chosen.shared)} if chosen.shared else {}),
            **({"unheld": dict(unheld)} if unheld else {}),
        },
        "cases": [
            {key: value for key, value in case.items() if key != "token_ids"}
            for case in subject.cases
        ],
        "dtype": subject.dtype,
        "oracle": recording.oracle,
        "reference": environment(recording.device),
    }


def environment(device: str) -> dict[str, Any]:
    """What computes: other versions or processors may round otherwise."""
    return {
        "implementation": "torch",
        "device": device,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _silent(chosen: Chosen, done: Sequence[_Done]) -> tuple[str, ...]:
    called = {entry.call.module for entry in done}
    return tuple(
        name
        for module, name in chosen.names.items()
        if name not in called and any(True for _ in module.parameters(recurse=False))
    )
