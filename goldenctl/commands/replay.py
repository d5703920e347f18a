"""``goldenctl replay``: run a golden's inputs through another engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.engine import Engine
from goldenctl.commands.groups import takes
from goldenctl.commands.options import (
    GOLDEN,
    PATH,
    check_layers,
    goldens_option,
    plural,
    progress_bar,
)
from goldenctl.commands.targets import refuse_other, refuse_taken
from goldenctl.errors import EXIT_BEYOND_TOLERANCE, UsageError
from goldenctl.folders import scratch
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.replay.backend import Backend
    from goldenctl.replay.run import Summary


@click.command("replay", short_help="Run a golden's inputs through another engine")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=PATH)
@takes("engine", Engine)
@takes("options", Options)
@click.option(
    "--alone-vs-batched",
    is_flag=True,
    help="Also replay each row of a batch alone, and say where the two differ.",
)
@click.option("--force", is_flag=True, help="Replace an existing run.")
@goldens_option()
def replay_command(
    golden: Path, run: Path, engine: Engine, options: Options, alone_vs_batched: bool, force: bool
) -> int:
    """Replay GOLDEN's inputs on a backend and write its outputs to RUN.

    Ends with exit code 1 when a sublayer crashed, hung or was refused, or with --shuffle is
    not deterministic; RUN then says which.
    """
    from goldenctl.commands.replay_modules import refuse_of_modules
    from goldenctl.golden.calls import is_of_modules
    from goldenctl.golden.file import open_golden

    refuse_other(run, "run")
    if not options.resume and run.exists() and run.stat().st_size:
        refuse_taken(run, force=force)
    source = open_golden(golden, kind="golden")
    if is_of_modules(source.recipe):
        from goldenctl.commands.replay_modules import replay_modules_of

        return replay_modules_of(source, run, engine, options)
    refuse_of_modules(engine, options)
    check(source, engine, options)
    if alone_vs_batched:
        if engine.simulated:
            msg = "--alone-vs-batched: the simulated backend computes nothing"
            raise UsageError(msg, hint="use --backend infinicore or torch")
        from goldenctl.studies.alone import rows_of

        rows_of(source)
    summary, opened = run_replay(source, run, engine, options)
    agree = True
    if alone_vs_batched:
        assert opened is not None
        folder = engine.folder(source)
        agree = _compare_rows(source, run, folder, backend=opened, options=options)
    steady = True
    if summary.determinism is not None:
        from goldenctl.report.render_console import show
        from goldenctl.report.sections.course import passes

        many_cases = len(source.recipe["cases"]) > 1
        show([passes(summary.determinism, many_cases=many_cases)])
        steady = not summary.determinism.findings
    return 0 if steady and agree and not summary.failed else EXIT_BEYOND_TOLERANCE


def check(golden: GoldenFile, engine: Engine, options: Options) -> None:
    """Raise UsageError for options that do not fit the golden, the backend or each other."""
    from goldenctl.replay.backend import parse_device

    parse_device(options.device)
    check_layers(options.layers, golden.config.num_hidden_layers)
    _refuse_unfit(engine, options)
    _refuse_contradictions(options)


def run_replay(
    source: GoldenFile, run: Path, engine: Engine, options: Options
) -> tuple[Summary, Backend | None]:
    """Replay and print what happened; return it, and the backend unless it was simulated."""
    from goldenctl.replay.backend import check_attention, check_dtype
    from goldenctl.replay.effect import refuse_without_effect
    from goldenctl.replay.run import replay, replay_simulated

    started = time.monotonic()
    opened = None
    if engine.simulated:
        summary = replay_simulated(source, run, options=options)
        click.echo("SIMULATED: these are the golden's own tensors with noise, no engine ran")
    else:
        opened = engine.open()
        check_dtype(opened, options.dtype or source.recipe["dtype"])
        check_attention(opened, options.attention)
        folder = engine.folder(source)
        refuse_without_effect(source, folder, backend=opened, options=options)
        with progress_bar("replaying") as progress:
            summary = replay(
                source, folder, run, backend=opened, options=options, progress=progress
            )
    _tell(summary, run, time.monotonic() - started)
    return summary, opened


def _tell(summary: Summary, run: Path, seconds: float) -> None:
    for name in summary.failed:
        click.echo(f"✗ {name} failed")
    if summary.resumed:
        click.echo(f"finished before, and kept: {plural(summary.resumed, 'sublayer')}")
    good = summary.sublayers - len(summary.failed)
    sublayers = plural(summary.sublayers, "sublayer")
    click.echo(f"wrote {run}: {good} of {sublayers} replayed in {seconds:.1f} s")
    for name, command in summary.debug_commands.items():
        if name not in summary.failed:
            click.echo(f"{name} alone: {command}")
    if summary.failed:
        click.echo(
            f"goldenctl inspect {run} shows the failures and the command to rerun each alone"
        )


def _compare_rows(
    golden: GoldenFile, run: Path, checkpoint: Path, *, backend: Backend, options: Options
) -> bool:
    """Replay the rows of batches alone and print where they are not what they are in RUN."""
    from goldenctl.diff.tolerance import default_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.report.console import print_report
    from goldenctl.studies.alone import alone_vs_batched

    with (
        scratch() as folder,
        progress_bar("replaying alone") as progress,
    ):
        report = alone_vs_batched(
            golden,
            open_golden(run),
            checkpoint,
            backend=backend,
            options=options,
            policy=default_policy(),
            folder=folder,
            progress=progress,
        )
    click.echo("\neach row alone against the same row in its batch, both by this backend:")
    print_report(report)
    return report.ok


def _refuse_unfit(engine: Engine, options: Options) -> None:
    """Refuse options that the backend would silently ignore."""
    if options.noise is not None and not engine.simulated:
        msg = f"--noise: only the simulated backend has noise, not {engine.backend}"
        raise UsageError(msg)
    if options.seed is not None and not engine.simulated and not options.shuffle:
        msg = "--seed: only --shuffle and the simulated backend draw random numbers"
        raise UsageError(msg)
    for option, given in (
        ("--inject", bool(options.faults)),
        ("--attention sdpa", options.attention == "sdpa"),
        ("--shuffle", options.shuffle),
        ("--workers", options.workers > 1),
        ("--resume", options.resume),
        ("--debug", bool(options.debug)),
    ):
        if given and engine.simulated:
            msg = f"{option}: the simulated backend computes nothing"
            raise UsageError(msg, hint="use --backend infinicore or torch")


def _refuse_contradictions(options: Options) -> None:
    """Refuse options that do not go together."""
    chain = options.mode == "chain"
    several = options.workers > 1
    for together, why in (
        (
            chain and options.shuffle,
            "--shuffle: in --mode chain every sublayer needs the one before it",
        ),
        (chain and several, "--workers: in --mode chain every sublayer needs the one before it"),
        (
            options.shuffle and several,
            "--shuffle and --workers: the order is that of one process",
        ),
        (options.shuffle and options.resume, "--shuffle and --resume: passes are not kept"),
    ):
        if together:
            raise UsageError(why)
    if options.memory_bytes is not None and options.shuffle:
        msg = "--memory: it bounds --workers, and --shuffle has one"
        raise UsageError(msg)
