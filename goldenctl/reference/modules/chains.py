"""Budgets along the whole model: truth and twins from its inputs on, kept on disk call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldenctl.errors import GoldenctlError
from goldenctl.folders import scratch
from goldenctl.places import step_path
from goldenctl.reference.modules.budgets import (
    Budgets,
    Held,
    budget,
    doubt,
    drawn_in,
    twin_noise,
)
from goldenctl.reference.modules.subject import Subject
from goldenctl.reference.modules.values import Given, tensors_of
from goldenctl.reference.modules.watch import Call, Chosen, Watch, run_steps
from goldenctl.reference.modules.wide import Wide, computing
from goldenctl.reference.twins import TWINS

# By step, what the model itself was given: the tensors by path.
Roots = Mapping[str, Mapping[str, Tensor]]
Place = tuple[str, str, int]


class _Spool:
    """Writes what calls yield to a folder, a file for each tensor."""

    def __init__(self, folder: Path, mode: Wide, roots: Roots) -> None:
        self._folder = folder
        self._mode = mode
        self._roots = roots
        self._depth = 0
        self.step = ""
        self.kept: dict[tuple[Place, str], tuple[Path, torch.dtype, tuple[int, ...]]] = {}

    def before(self, _call: Call, _module: nn.Module, given: Given) -> Given | None:
        self._depth += 1
        if self._depth > 1:
            return None
        known = self._roots[self.step]
        return given.mapped(lambda path, live: self._mode.widened(known.get(path, live)))

    def after(self, call: Call, _module: nn.Module, _given: Given, output: Any) -> None:
        self._depth -= 1
        place = (self.step, call.module, call.number)
        for tap, tensor in tensors_of(output, "output"):
            path = self._folder / str(len(self.kept))
            if tensor.is_complex():
                continue
            value = tensor.detach().cpu().contiguous()
            value.numpy().tofile(path)
            self.kept[place, tap] = (path, value.dtype, tuple(value.shape))

    def read(self, place: Place, tap: str) -> Tensor | None:
        """Return what was kept; None where this pass did not yield it."""
        if (place, tap) not in self.kept:
            return None
        path, dtype, shape = self.kept[place, tap]
        flat = torch.from_numpy(np.fromfile(path, np.uint8))
        return flat.view(dtype).reshape(shape) if flat.numel() else torch.empty(shape, dtype=dtype)


class Chains:
    """The truth of a subject from its inputs on, and its twins. A context manager: their results
    lie in a temporary folder, which is several times as large as the golden."""

    def __init__(self, subject: Subject, chosen: Chosen, roots: Roots) -> None:
        self._subject = subject
        self._chosen = chosen
        self._roots = roots
        self._scratch = scratch()
        self._passes: list[_Spool] = []
        self._modes: list[Wide] = []
        self.failed = ""

    def __enter__(self) -> Chains:
        root = self._scratch.__enter__()
        for twin in range(1 + TWINS):
            folder = root / str(twin)
            folder.mkdir()
            try:
                self._passes.append(self._run(folder, twin))
            except (OSError, GoldenctlError):
                raise
            except Exception as error:
                self.failed = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                break
        return self

    def __exit__(self, *error: Any) -> None:
        self._scratch.__exit__(*error)

    def of_model(self, place: Place, recorded: Mapping[str, Callable[[], Tensor]]) -> Held:
        """Return the budgets of the model itself, and why they say little, if they do."""
        if self.failed:
            return Held(unheld=f"cannot be computed in float64: {self.failed}")
        drawn = drawn_in(self._modes)
        if drawn:
            return Held(unheld=drawn)
        budgets = self.budgets(place, recorded)
        return Held(budgets, doubt({n: v() for n, v in recorded.items()}, budgets, self._modes))

    def budgets(self, place: Place, recorded: Mapping[str, Callable[[], Tensor]]) -> Budgets:
        """Return the budgets of a call's results, those that every pass yields in one shape."""
        found = {}
        for tap, value in recorded.items():
            passes = [each.read(place, tap) for each in self._passes]
            expected = value()
            fitting = [p for p in passes if p is not None and p.shape == expected.shape]
            if not self.failed and len(fitting) == 1 + TWINS:
                found[tap] = budget(expected, fitting)
        return found

    def _run(self, folder: Path, twin: int) -> _Spool:
        model = self._subject.module
        dtype = getattr(torch, self._subject.dtype)
        mode = Wide(dtype, twin_noise(0, twin))
        self._modes.append(mode)
        spool = _Spool(folder, mode, self._roots)
        watch = Watch(self._chosen, spool)
        buffers = {name: mode.widened(value) for name, value in model.named_buffers()}

        def call(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(model, buffers, args, kwargs, tie_weights=True)

        with watch.installed(), computing(mode):
            for case, calls in self._subject.calls.items():
                for number in run_steps(watch, call, calls):
                    spool.step = step_path(case, number)
        return spool
