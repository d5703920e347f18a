"""``goldenctl trace``: watch an engine of your own compute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import (
    BYTES,
    GOLDEN,
    PATH,
    FiniteRange,
    goldens_option,
    human_bytes,
    plural,
    recorded_folder,
)
from goldenctl.commands.replay import notify
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.trace.launch import Progress
    from goldenctl.trace.session import Wanted


@click.command("trace", short_help="Watch your own engine compute")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=PATH)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option("--infini-root", type=PATH, help="The install of the InfiniCore that PROGRAM loads.")
@click.option("--ops", metavar="LIST", help="Only these, as rms_norm,Gemm; none is nothing.")
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option(
    "--timeout", type=FiniteRange(0.1, 1e7), metavar="SECONDS", help="The longest it may run."
)
@click.option("--max-log", type=BYTES, metavar="SIZE", help="Keep contents up to that, as 20GiB.")
@click.option("--keep-calls", type=PATH, metavar="FILE", help="Keep the log of its calls.")
@goldens_option()
def trace_command(
    golden: Path,
    run: Path,
    program: tuple[str, ...],
    *,
    infini_root: Path | None,
    ops: str | None,
    model_path: Path | None,
    timeout: float | None,
    max_log: int | None,
    keep_calls: Path | None,
) -> int:
    """Run PROGRAM as it is, and write down every op that it has InfiniCore compute.

    PROGRAM and its arguments stand behind two dashes: trace GOLDEN RUN -- PROGRAM ARGS. It is
    not rebuilt: a library is preloaded into it, in front of InfiniCore's C API.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.infini.find import find_install
    from goldenctl.trace.session import Wanted, chosen_ops

    if not program:
        message = "no PROGRAM was given"
        raise UsageError(message, hint="trace GOLDEN RUN -- PROGRAM ARGS")
    source = open_golden(golden, kind="golden")
    refuse_other(run, "run")
    kept = keep_calls or run.with_name(f"{run.name}.calls")
    refuse_other(kept, "calls")
    install = find_install(infini_root)
    wanted = Wanted(program, install, chosen_ops(ops, install), timeout, max_log)
    return _traced(source, recorded_folder(source, model_path), wanted, kept=kept)


def _traced(golden: GoldenFile, folder: Path, wanted: Wanted, *, kept: Path) -> int:
    """Trace a program and say on standard error what came of it; its output is its own."""
    from goldenctl.model.checkpoint import Checkpoint
    from goldenctl.trace.session import log_folder, rescue, trace

    started = time.monotonic()
    with log_folder(kept) as logs, Checkpoint.open(folder) as checkpoint:
        try:
            with _progress() as progress:
                outcome = trace(wanted, checkpoint, logs, notify=_building, progress=progress)
        except KeyboardInterrupt:
            if rescue(logs, kept):
                notify(f"what it did until then is in {kept}: goldenctl inspect {kept}")
            raise
        if outcome.calls is not None:
            count = plural(sum(1 for _ in outcome.calls.calls), "call")
            size = human_bytes(outcome.calls.path.stat().st_size)
            notify(f"traced {count}, {size}, in {time.monotonic() - started:.1f} s: {kept}")
            if len(outcome.ending.logs) > 1:
                processes = len(outcome.ending.logs)
                notify(f"{processes} processes called InfiniCore: it is that of the most calls")
            outcome.calls.path.replace(kept)
    for note in outcome.calls.notes if outcome.calls is not None else ():
        if note.function:
            notify(f"{note.function}: {note.text}")
    if outcome.error is not None:
        raise outcome.error
    return 0


def _building(line: str) -> None:
    """Pass on what is being done, without the output of compilers."""
    if line.startswith(("building ", "digesting ", "waiting ")):
        notify(line)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Count calls on standard error when that is a terminal; the line goes at the end."""
    shown = sys.stderr is not None and sys.stderr.isatty()

    def tell(calls: int, nbytes: int) -> None:
        if shown:
            click.echo(
                f"\r\x1b[Ktracing: {calls:,} calls, {human_bytes(nbytes)} ", err=True, nl=False
            )

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)
