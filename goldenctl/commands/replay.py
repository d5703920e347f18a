"""``goldenctl replay``: run a golden's inputs through another engine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import (
    BYTES,
    DTYPE,
    GOLDEN,
    PATH,
    FiniteRange,
    goldens_option,
    mode_option,
    parse_layers,
    plural,
    progress_bar,
    recorded_folder,
    timeout_option,
)
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import EXIT_BEYOND_TOLERANCE, UsageError

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.replay.backend import Backend
    from goldenctl.replay.run import Options


@click.command("replay", short_help="Run a golden's inputs through another engine")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=PATH)
@click.option(
    "--backend",
    default="infinicore",
    show_default=True,
    metavar="NAME",
    help="infinicore, torch, simulated, or exec:PROGRAM.",
)
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option(
    "--device", default="cpu", show_default=True, help="cpu, nvidia, ascend... or TYPE:N."
)
@mode_option
@click.option("--dtype", type=DTYPE, help="Compute dtype; the golden's unless given.")
@click.option("--layers", metavar="LIST", help="Only these decoder layers, such as 0-4,10.")
@click.option(
    "--attention",
    type=click.Choice(["eager", "sdpa"]),
    default="eager",
    show_default=True,
    help="Three ops, or one fused op where the backend has it.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    help="Timed launches of each op; with --shuffle, rounds of passes.",
)
@click.option(
    "--shuffle",
    is_flag=True,
    help="Replay again in other orders and over other memory, and say what is not deterministic.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Replay sublayers in this many processes at once.",
)
@click.option(
    "--memory", type=BYTES, metavar="SIZE", help="What all workers may take, such as 4GiB."
)
@click.option(
    "--alone-vs-batched",
    is_flag=True,
    help="Also replay each row of a batch alone, and say where the two do not agree.",
)
@click.option("--resume", is_flag=True, help="Go on where it was interrupted; keep what is done.")
@timeout_option
@click.option(
    "--inject",
    "faults",
    multiple=True,
    metavar="FAULT[@PLACE]",
    help="Put in a fault, such as no_norm@layers.03.attention.q_norm, or cache_lost@PATH of one "
    "step (repeatable).",
)
@click.option(
    "--debug",
    multiple=True,
    metavar="SUBLAYER",
    help="Print the command that runs this sublayer alone, for a debugger (repeatable).",
)
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@click.option("--noise", type=FiniteRange(0), help="Relative noise of the simulated backend.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of --shuffle and of the simulated backend; 0 unless given.",
)
@goldens_option()
def replay_command(golden: Path, run: Path, **options: object) -> int:
    """Replay GOLDEN's inputs on a backend and write its outputs to RUN.

    Ends with exit code 1 when a sublayer crashed, hung or was refused, or with --shuffle is
    not deterministic; RUN then says which.
    """
    return run_replay(golden, run, **options)  # type: ignore[arg-type]


def run_replay(
    golden: Path,
    run: Path,
    *,
    backend: str = "infinicore",
    model_path: Path | None = None,
    device: str = "cpu",
    mode: str | None = None,
    dtype: str | None = None,
    layers: str | None = None,
    attention: str = "eager",
    repeat: int = 1,
    shuffle: bool = False,
    workers: int = 1,
    memory: int | None = None,
    resume: bool = False,
    alone_vs_batched: bool = False,
    timeout: float = 600.0,
    infini_root: Path | None = None,
    faults: tuple[str, ...] = (),
    debug: tuple[str, ...] = (),
    noise: float | None = None,
    seed: int | None = None,
) -> int:
    """Replay and print what happened; return the exit code."""
    from goldenctl.golden.file import open_golden
    from goldenctl.ops.inject import parse_injection
    from goldenctl.replay.backend import (
        check_attention,
        check_dtype,
        open_backend,
        parse_device,
    )
    from goldenctl.replay.effect import refuse_without_effect
    from goldenctl.replay.run import Options, replay, replay_simulated

    source = open_golden(golden, kind="golden")
    refuse_other(run, "run")
    parse_device(device)
    count = source.config.num_hidden_layers
    options = Options(
        mode=mode or "",
        dtype=dtype,
        device=device,
        layers=parse_layers(layers, count),
        attention=attention,
        repeat=repeat,
        shuffle=shuffle,
        seed=seed or 0,
        workers=workers,
        memory_bytes=memory,
        resume=resume,
        timeout_s=timeout,
        faults=tuple(parse_injection(text) for text in faults),
        debug=frozenset(debug),
    )
    _refuse_unfit(backend, options, noise=noise, seed=seed)
    _refuse_contradictions(options)
    if alone_vs_batched and backend == "simulated":
        msg = "--alone-vs-batched: the simulated backend computes nothing"
        raise UsageError(msg, hint="use --backend infinicore or torch")
    if alone_vs_batched:
        from goldenctl.studies.alone import rows_of

        rows_of(source)
    started = time.monotonic()
    if backend == "simulated":
        summary = replay_simulated(source, run, options=options, noise=noise, seed=options.seed)
        click.echo("SIMULATED: these are the golden's own tensors with noise, no engine ran")
    else:
        opened = open_backend(backend, infini_root=infini_root, notify=notify)
        check_dtype(opened, dtype or source.recipe["dtype"])
        check_attention(opened, attention)
        folder = recorded_folder(source, model_path)
        refuse_without_effect(source, folder, backend=opened, options=options)
        with progress_bar("replaying") as progress:
            summary = replay(
                source, folder, run, backend=opened, options=options, progress=progress
            )
    for name in summary.failed:
        click.echo(f"✗ {name} failed")
    if summary.resumed:
        click.echo(f"finished before, and kept: {plural(summary.resumed, 'sublayer')}")
    seconds = time.monotonic() - started
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
    agree = True
    if alone_vs_batched:
        agree = _compare_rows(source, run, folder, backend=opened, options=options)
    steady = True
    if summary.determinism is not None:
        from goldenctl.report.determinism import print_determinism

        many_cases = len(source.recipe["cases"]) > 1
        steady = print_determinism(summary.determinism, many_cases=many_cases)
    return 0 if steady and agree and not summary.failed else EXIT_BEYOND_TOLERANCE


def _compare_rows(
    golden: GoldenFile, run: Path, folder: Path, *, backend: Backend, options: Options
) -> bool:
    """Replay the rows of batches alone and print where they are not what they are in RUN."""
    from goldenctl.diff.tolerance import default_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.report.console import print_report
    from goldenctl.studies.alone import alone_vs_batched

    with (
        tempfile.TemporaryDirectory(prefix="goldenctl-") as scratch,
        progress_bar("replaying alone") as progress,
    ):
        report = alone_vs_batched(
            golden,
            open_golden(run),
            folder,
            backend=backend,
            options=options,
            policy=default_policy(),
            folder=Path(scratch),
            progress=progress,
        )
    click.echo("\neach row alone against the same row in its batch, both by this backend:")
    print_report(report)
    return report.ok


def _refuse_unfit(backend: str, options: Options, *, noise: float | None, seed: int | None) -> None:
    """Refuse options that the backend would silently ignore."""
    simulated = backend == "simulated"
    if noise is not None and not simulated:
        msg = f"--noise: only the simulated backend has noise, not {backend}"
        raise UsageError(msg)
    if seed is not None and not simulated and not options.shuffle:
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
        if given and simulated:
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


def notify(message: str) -> None:
    click.echo(message, err=True)
