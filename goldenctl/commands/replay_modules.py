"""``goldenctl replay`` of a golden of modules: in PyTorch, from recorded inputs or as a chain."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import plural, progress_bar
from goldenctl.errors import EXIT_BEYOND_TOLERANCE, UsageError
from goldenctl.golden.calls import MODULE

if TYPE_CHECKING:
    from goldenctl.commands.engine import Engine
    from goldenctl.golden.file import GoldenFile
    from goldenctl.reference.modules.replay import ModuleReplay
    from goldenctl.reference.modules.subject import Subject
    from goldenctl.replay.options import Options


def replay_modules_of(golden: GoldenFile, run: Path, engine: Engine, options: Options) -> int:
    """Replay, say what happened, return the exit code."""
    how, subject = prepare_modules(golden, engine, options)
    from goldenctl.reference.modules.replay import replay_modules

    started = time.monotonic()
    with progress_bar("replaying") as progress:
        done = replay_modules(golden, subject, run, how, progress)
    for name in done.failed:
        click.echo(f"✗ {name} failed")
    calls = plural(done.calls, "call")
    good = done.calls - len(done.failed)
    click.echo(f"wrote {run}: {good} of {calls} replayed in {time.monotonic() - started:.1f} s")
    if done.failed:
        click.echo(f"goldenctl inspect {run} shows the failures")
    return EXIT_BEYOND_TOLERANCE if done.failed else 0


def prepare_modules(
    golden: GoldenFile, engine: Engine, options: Options
) -> tuple[ModuleReplay, Subject]:
    """Check the options and make the module; raises UsageError for what does not fit."""
    from goldenctl.replay.modules import prepare

    if engine.backend != "torch":
        message = f"--backend {engine.backend}: {golden.path} is a golden of modules"
        raise UsageError(message, hint="replay it with --backend torch")
    return prepare(golden, options, module=engine.module, folder=lambda: engine.folder(golden))


def refuse_of_modules(engine: Engine, options: Options) -> None:
    """Raise UsageError for options that go with a golden of modules alone."""
    for option, given in (
        ("--module", engine.module is not None),
        ("--compile", options.compiled),
        ("--mode module", options.mode == MODULE),
    ):
        if given:
            message = f"{option}: the golden is one of a decoder's ops, not of modules"
            raise UsageError(message)
