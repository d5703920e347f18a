"""Owns the exact commands that a report gives: to reproduce it, to rerun one op under a
debugger, to accept the change."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from goldenctl.diff.report import Report
from goldenctl.golden.schema import short_name
from goldenctl.report.answers import first_culprit


@dataclass(frozen=True)
class Command:
    """A command line and what it is for."""

    purpose: str
    text: str


def commands(report: Report) -> list[Command]:
    """Return the commands that fit the report, in the order of their use."""
    return [*_reproduce(report), *_debug(report), *_accept(report)]


def _reproduce(report: Report) -> Iterator[Command]:
    golden, run, recipe = report.golden.path, report.run.path, report.run.recipe
    if report.command == "selftest":
        yield Command("Run the selftest again", _line("selftest", golden, *_engine(recipe)))
        return
    if report.command == "blame":
        yield Command("Blame again", _line("blame", golden, *_engine(recipe), *_faults(report)))
    elif report.run.kind == "run":
        options = [*_engine(recipe), "--mode", report.mode, *_faults(report)]
        for name in ("dtype", "attention"):
            if recipe.get(name):
                options += [f"--{name}", str(recipe[name])]
        layers = _layers(recipe)
        yield Command(
            "Replay again",
            _line("replay", golden, run, *options, *(["--layers", layers] if layers else [])),
        )
        yield Command("Compare again", _line("diff", golden, run))
        if not report.ok:
            yield Command(
                "Find every culprit and name its bug",
                _line("blame", golden, *_engine(recipe), *_faults(report)),
            )


def _debug(report: Report) -> Iterator[Command]:
    for sublayer in report.sublayers:
        command = (sublayer.failure or {}).get("command")
        if command:
            place = short_name(sublayer.name) or sublayer.name
            yield Command(f"Rerun {place} alone, under a debugger", f"gdb --args {command}")
    first = None if report.ok else first_culprit(report)
    if first is not None and first.metrics is not None:
        where = short_name(first.sublayer).split(".")
        layers = ["--layers", where[1]] if where[0] == "layers" and len(where) > 1 else []
        yield Command(
            f"Replay {short_name(first.sublayer)} from the golden's inputs, op by op",
            _line(
                "replay",
                report.golden.path,
                "one.h5",
                *_engine(report.run.recipe),
                "--mode",
                "op",
                *layers,
                *_faults(report),
            ),
        )


def _accept(report: Report) -> Iterator[Command]:
    model = (report.golden.recipe.get("model") or {}).get("path")
    if model and report.selftest is None and not report.ok:
        yield Command(
            "Only if the reference is what changed: record a new golden",
            _line("record", str(model), report.golden.path, *_recording(report.golden.recipe)),
        )


def _recording(recipe: dict[str, Any]) -> Iterator[str]:
    for case in recipe.get("cases") or ():
        if isinstance(case, dict) and isinstance(case.get("text"), str):
            yield from ("--prompt", case["text"])
    for name in ("dtype", "taps", "logits"):
        if recipe.get(name):
            yield from (f"--{name}", str(recipe[name]))
    if recipe.get("oracle", "none") != "none":
        yield from ("--oracle", str(recipe["oracle"]))
    yield "--force"


def _engine(recipe: dict[str, Any]) -> list[str]:
    backend = recipe.get("backend")
    name = backend.get("name") if isinstance(backend, dict) else None
    options = ["--backend", str(name)] if name else []
    device = recipe.get("device")
    return [*options, "--device", str(device)] if device and device != "cpu" else options


def _faults(report: Report) -> list[str]:
    return [word for fault in report.faults for word in ("--inject", fault)]


def _layers(recipe: dict[str, Any]) -> str:
    """The decoder layers of a replay that left some out; empty when it took all."""
    names = [short_name(str(name)).split(".") for name in recipe.get("sublayers") or ()]
    found = {parts[1] for parts in names if parts[0] == "layers" and len(parts) > 1}
    layers = sorted({int(layer) for layer in found if layer.isdecimal()})
    config = (recipe.get("model") or {}).get("config") or {}
    return "" if len(layers) == config.get("num_hidden_layers") else ",".join(map(str, layers))


def _line(*words: str) -> str:
    return shlex.join(["goldenctl", *words])
