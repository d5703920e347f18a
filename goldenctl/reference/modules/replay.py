"""A replay of a golden of modules in PyTorch: on another device, in another type, compiled.

In mode ``module`` every call is computed from what was recorded of its inputs, in mode ``chain``
the model runs from its own recorded inputs on. The model itself runs in both: it says which
calls there are, and what they are given beside tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldenctl.errors import GoldenctlError, UsageError
from goldenctl.golden.calls import MODULE, split_call
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.places import place_of, step_path
from goldenctl.reference.memory import kept_memory
from goldenctl.reference.modules.record import copied
from goldenctl.reference.modules.subject import Subject, stored_dtype
from goldenctl.reference.modules.values import Copies, Given, mapped, tensors_of
from goldenctl.reference.modules.watch import Call, Watch, choose, run_steps
from goldenctl.reference.sink import RoomSink

Progress = Callable[[int, int, str], None]
Recorded = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class ModuleReplay:
    """How a golden of modules is replayed: ``module`` is the function that was asked for,
    ``compiled`` says by torch.compile; ``grafts`` are the groups of calls whose outputs are taken
    from the golden."""

    mode: str = MODULE
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "eager"
    compiled: bool = False
    module: str = ""
    grafts: frozenset[str] = frozenset()


@dataclass
class Outcome:
    """What became of a call."""

    time_ns: int = 0
    failure: dict[str, str] | None = None


@dataclass(frozen=True)
class Replayed:
    """How many calls were replayed, and which failed."""

    calls: int
    failed: list[str] = field(default_factory=list)


@kept_memory()
def replay_modules(
    golden: GoldenFile,
    subject: Subject,
    run_path: Path,
    how: ModuleReplay,
    progress: Progress = lambda *_: None,
) -> Replayed:
    """Replay every call that the golden has, and write the run file.

    Calls that fail, or that the model does not make, are in the run, marked so.
    """
    recipe = golden.recipe["modules"]
    chosen = choose(subject.module, recipe.get("match", ()), recipe.get("depth"))
    with RoomSink(run_path) as sink:
        replayer = Replayer(golden, sink, how, subject.module)
        watch = Watch(chosen, replayer)
        replayer.watch = watch
        model = _compiled(subject.module) if how.compiled and how.mode != MODULE else subject.module
        with torch.no_grad(), watch.installed():
            for case, calls in subject.calls.items():
                with replayer.failing(case):
                    for number in run_steps(watch, model, calls):
                        replayer.step = step_path(case, number)
                        progress(len(replayer.outcomes), len(golden.sublayers), replayer.step)
        _seal(golden, sink, replayer, how)
    failed = [group for group, found in replayer.outcomes.items() if found.failure is not None]
    return Replayed(len(golden.sublayers), failed)


class Replayer:
    """Computes the calls that the golden has, and stores what they yield."""

    def __init__(
        self, golden: GoldenFile, sink: RoomSink, how: ModuleReplay, model: nn.Module
    ) -> None:
        self._golden = golden
        self._sink = sink
        self._how = how
        self._groups = {
            (place_of(path).step_path, *split_call(place_of(path).sublayer)): path
            for path in golden.sublayers
        }
        self._states: Copies = {}
        self._alone = _without_hooks(model) if how.compiled and how.mode == MODULE else {}
        self._depth = 0
        self.watch: Watch | None = None
        self.step = ""
        self.outcomes: dict[str, Outcome] = {}
        self.inherited: dict[str, float] = {}
        self._ended = ""

    @contextlib.contextmanager
    def failing(self, case: str) -> Iterator[None]:
        """Let an error of the model end this case alone; its other calls have failed."""
        self._ended = ""
        self._depth = 0
        try:
            yield
        except (GoldenctlError, KeyboardInterrupt):
            raise
        except Exception as error:
            self._ended = f"the pass ended with {_said(error)}"
        for (step, *_), group in self._groups.items():
            if place_of(step + "/x").case == case and group not in self.outcomes:
                said = self._ended or "the model did not call it"
                self.outcomes[group] = Outcome(failure={"reason": "not_run", "message": said})

    def not_computed(self) -> list[str]:
        """Return the results that another attention does not yield, though its call was made."""
        return [
            name
            for name, info in self._golden.tensors.items()
            if info.role == "output"
            and name not in self._sink.specs
            and self.outcomes[info.place.group].failure is None
        ]

    def before(self, call: Call, module: nn.Module, given: Given) -> Given | None:
        group = self._group(call)
        self._depth += 1
        if self._depth == 1:
            self._states = {}
            if group is not None:
                # Copies of what a cache held; the model goes on with its own.
                given.mapped(self._recorded(group), objects=True, stand_ins=self._states)
                given = given.mapped(self._recorded(group))
        if group is None:
            return None
        if self._how.mode == MODULE:
            self._isolated(group, call, module, given)
        else:
            self._note_inherited(group, given)
        return given if self._depth == 1 else None

    def after(self, call: Call, module: nn.Module, given: Given, output: Any) -> Any:
        self._depth -= 1
        group = self._group(call)
        if group is None or self._how.mode == MODULE:
            return None
        self.outcomes[group] = Outcome(call.time_ns)
        self._store(group, call.kind, output)
        if group in self._how.grafts:
            return mapped(output, "output", self._recorded(group))
        return None

    def _group(self, call: Call) -> str | None:
        return self._groups.get((self.step, call.module, call.number))

    def _isolated(self, group: str, call: Call, module: nn.Module, given: Given) -> None:
        """Compute a call from its recorded inputs and store what it yields."""
        assert self.watch is not None
        own = given.mapped(self._recorded(group), objects=True, stand_ins=dict(self._states))
        alone = self._alone.get(call.module, module)
        try:
            with self.watch.paused():
                output = alone(*own.args, **own.kwargs)
        except Exception as error:
            failure = {"reason": "status", "message": _said(error)}
            self.outcomes[group] = Outcome(failure=failure)
            return
        self.outcomes[group] = Outcome()
        self._store(group, call.kind, output)

    def _recorded(self, group: str) -> Recorded:
        """Return what gives a tensor's recorded values, in the type and place that it has."""

        def change(path: str, live: Tensor) -> Tensor:
            name = f"{group}/{path}"
            if self._golden.aliases.get(name, name) not in self._golden.tensors:
                return live.clone()
            values = tensor_of(self._golden.verify(name))
            values = values.reshape(live.shape) if values.numel() == live.numel() else values
            return values.to(live.device, live.dtype, copy=True)

        return change

    def _note_inherited(self, group: str, given: Given) -> None:
        """Keep how far what arrives is from what was recorded, as one relative L2 error."""
        error = expected = 0.0
        for path, live in given.tensors():
            name = f"{group}/{path}"
            known = self._golden.aliases.get(name, name) in self._golden.tensors
            if known and live.is_floating_point():
                right = tensor_of(self._golden.verify(name)).double()
                if right.numel() == live.numel():
                    wrong = live.detach().cpu().double().reshape(right.shape) - right
                    error += float(wrong.square().sum())
                    expected += float(right.square().sum())
        self.inherited[group] = (error / expected) ** 0.5 if expected > 0 else 0.0

    def _store(self, group: str, kind: str, output: Any) -> None:
        for tap, tensor in tensors_of(output, "output"):
            name = f"{group}/{tap}"
            if not tensor.numel() or name not in self._golden.tensors:
                continue
            dtype = stored_dtype(tensor, name)
            copy = copied(tensor, dtype)
            dims = tuple(f"dim{axis}" for axis in range(copy.dim()))
            spec = TensorSpec(name, dtype, tuple(copy.shape), dims, "output", kind)
            self._sink.add(spec, copy)


def tensor_of(values: np.ndarray[Any, Any]) -> Tensor:
    """Return a golden's values as a tensor of their type."""
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(values).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(values))


def _compiled(model: nn.Module) -> Any:
    """Return the model compiled anew: code that was compiled before runs no hooks."""
    torch.compiler.reset()
    return torch.compile(model)


def _without_hooks(model: nn.Module) -> Mapping[str, Any]:
    """Return a compiled copy of each module, by name: hooks would break what is compiled."""
    import copy

    twin = copy.deepcopy(model)
    root = type(model).__name__
    torch.compiler.reset()
    return {name or root: torch.compile(module) for name, module in twin.named_modules()}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _seal(golden: GoldenFile, sink: RoomSink, replayer: Replayer, how: ModuleReplay) -> None:
    room = sink.finish()
    order = [name for name in golden.tensors if name in sink.specs]
    room.name({name: name for name in order})
    with GoldenWriter(
        room.path,
        kind="run",
        recipe=run_recipe(golden, replayer, how),
        tensors=[sink.specs[name] for name in order],
        links={},
        groups=list(golden.sublayers),
        room=room,
    ) as writer:
        writer.seal(
            digests=sink.digests,
            sublayers=[
                SublayerInfo(
                    group, found.time_ns, "failed" if found.failure else "ok", found.failure
                )
                for group, found in replayer.outcomes.items()
            ],
        )


def run_recipe(golden: GoldenFile, replayer: Replayer, how: ModuleReplay) -> dict[str, Any]:
    """What a run says of where it is from."""
    program = f"torch {torch.__version__}{', compiled' if how.compiled else ''}"
    return {
        "golden": {"path": str(golden.path), "content_digest": golden.content_digest},
        "model": golden.recipe["model"],
        "modules": golden.recipe["modules"],
        "cases": golden.recipe["cases"],
        "backend": {
            "name": "torch",
            "program": program,
            **({"module": how.module} if how.module else {}),
            **({"compiled": True} if how.compiled else {}),
        },
        "device": how.device,
        "mode": how.mode,
        "dtype": how.dtype,
        "attention": how.attention,
        "repeat": 1,
        "sublayers": list(golden.sublayers),
        "not_computed": replayer.not_computed() if how.attention != "eager" else [],
        "faults": [],
        "grafts": sorted(how.grafts),
        **({"inherited": replayer.inherited} if replayer.inherited else {}),
    }


def subject_of(
    golden: GoldenFile, module: str | None, folder: Path | None, how: ModuleReplay
) -> Subject:
    """Return what a golden is replayed with: a function's module, or the recorded checkpoint.

    A function is only called where it was asked for: what a golden names is not run unasked.
    Raises UsageError where it was not, or where the module has no such attention.
    """
    recipe = golden.recipe["modules"]
    if module is None and recipe.get("function"):
        message = f"{golden.path}: was recorded from the function {recipe['function']}"
        raise UsageError(message, hint=f"to call it, pass --module {recipe['function']}")
    if module is not None:
        from goldenctl.reference.modules.subject import from_function

        cast = recipe.get("cast", False) or how.dtype != golden.recipe["dtype"]
        subject = from_function(module, device=how.device, dtype=how.dtype if cast else None)
        _set_attention(subject.module, how.attention)
        return subject
    from goldenctl.reference.modules.pretrained import Loading, again

    assert folder is not None
    return again(golden, folder, Loading(how.device, how.dtype, how.attention))


def _set_attention(module: nn.Module, attention: str) -> None:
    if attention == "eager":
        return
    set_it = getattr(module, "set_attn_implementation", None)
    if set_it is None:
        message = f"--attention {attention}: {type(module).__name__} cannot be told which to use"
        raise UsageError(message)
    set_it(attention)
