"""Hooks on a model's modules: which of them, and what an observer is told of each call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol, cast

import torch
from torch import nn

from goldenctl.errors import UsageError
from goldenctl.golden.calls import depth_of
from goldenctl.reference.modules.values import Given

_COMPILED = "_orig_mod"  # where torch.compile's module keeps the one that it was made of


@dataclass
class Call:
    """One call of a module: its qualified name, the how manyth of this step it is, its class, and
    how long it took."""

    module: str
    number: int
    kind: str
    time_ns: int = 0


class Observer(Protocol):
    """Is told of the calls; what a method returns other than None takes the place of what the
    module is given, or yields."""

    def before(self, call: Call, module: nn.Module, given: Given) -> Given | None: ...

    def after(self, call: Call, module: nn.Module, given: Given, output: Any) -> Any: ...


@dataclass(frozen=True)
class Chosen:
    """The modules to watch, each by the name that its calls have. ``root`` is that of the model,
    ``shared`` maps further names of a module to it."""

    names: Mapping[nn.Module, str]
    root: str
    shared: Mapping[str, str] = field(default_factory=dict)


def choose(model: nn.Module, match: Sequence[str] = (), depth: int | None = None) -> Chosen:
    """Return the modules whose names match one of the patterns and are at most ``depth`` below
    the model, which is always one of them.

    Raises UsageError when a pattern matches no name.
    """
    root = type(model).__name__
    names: dict[nn.Module, str] = {}
    shared: dict[str, str] = {}
    matched: set[str] = set()
    for qualified, module in model.named_modules(remove_duplicate=False):
        name = _plain(qualified) or root
        fitting = [pattern for pattern in match if fnmatchcase(name, pattern)]
        matched.update(fitting)
        if name != root and (match and not fitting):
            continue
        if depth is not None and depth_of(name, root) > depth:
            continue
        if module not in names:
            names[module] = name
        elif names[module] != name:
            shared[name] = names[module]
    for pattern in match:
        if pattern not in matched:
            message = f"--match {pattern}: no module of {root} has such a name"
            raise UsageError(message, hint="names are those of named_modules(), such as layers.0.*")
    return Chosen(names, root, shared)


def _plain(qualified: str) -> str:
    """A module's name as it is without torch.compile, and as a part of a path."""
    parts = [part for part in qualified.split(".") if part != _COMPILED]
    return ".".join(parts).replace("/", "_")


class Watch:
    """Installs hooks that tell an observer of every call of the chosen modules."""

    def __init__(self, chosen: Chosen, observer: Observer) -> None:
        self._chosen = chosen
        self._observer = observer
        self._counts: Counter[str] = Counter()
        self._open: list[tuple[Call, Given, int]] = []
        self._spent_ns = 0  # by observers so far, which is nobody's time
        self._paused = False

    def new_step(self) -> None:
        """Count calls from the first again."""
        self._counts.clear()
        self._open.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Tell nobody of the calls inside."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the hooks in place."""
        handles = []
        for module, name in self._chosen.names.items():
            hooks = self._hooks(name)
            before, after = (torch.compiler.disable(hook) for hook in hooks)  # type: ignore[no-untyped-call]
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, name: str) -> tuple[Any, Any]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._paused:
                return None
            call = Call(name, self._counts[name], type(module).__name__)
            self._counts[name] += 1
            given = Given(args, kwargs)
            started_ns = time.perf_counter_ns()
            changed = self._observer.before(call, module, given)
            now_ns = time.perf_counter_ns()
            self._spent_ns += now_ns - started_ns
            self._open.append((call, given, now_ns - self._spent_ns))
            return None if changed is None else (changed.args, dict(changed.kwargs))

        def after(module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
            if self._paused:
                return None
            call, given, started_ns = self._open.pop()
            now_ns = time.perf_counter_ns()
            call.time_ns = now_ns - self._spent_ns - started_ns
            changed = self._observer.after(call, module, given, output)
            self._spent_ns += time.perf_counter_ns() - now_ns
            return changed

        return before, after


def run_steps(watch: Watch, model: Callable[..., Any], calls: Any) -> Iterator[int]:
    """Call the model for each step in turn; yields a step's number before it runs."""
    steps = calls()
    number, given = 0, next(steps, None)
    while given is not None:
        watch.new_step()
        yield number
        output = model(*given.args, **given.kwargs)
        number += 1
        try:
            given = cast("Given", steps.send(output))
        except StopIteration:
            given = None
