"""``goldenctl trace``: watch an engine of your own compute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.groups import takes
from goldenctl.commands.options import (
    BYTES,
    GOLDEN,
    PATH,
    FiniteRange,
    check_layers,
    goldens_option,
    human_bytes,
    notify,
    plural,
    progress_bar,
    recorded_folder,
)
from goldenctl.commands.targets import refuse_other
from goldenctl.errors import GoldenctlError, UsageError
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile
    from goldenctl.model.checkpoint import Checkpoint
    from goldenctl.trace.calls import Calls
    from goldenctl.trace.launch import Progress
    from goldenctl.trace.opmap import OpMap
    from goldenctl.trace.session import Outcome, Wanted
    from goldenctl.trace.weights import Book

_TELL_S = 10.0  # between two lines of progress


@click.command("trace", short_help="Watch your own engine compute")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=PATH)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--infini-root", type=PATH, help="Install folder of the InfiniCore that PROGRAM loads."
)
@takes("replaying", Options, "layers")
@click.option("--steps", metavar="LIST", help="Only these steps, such as 0 (the prefill), 1-3.")
@click.option(
    "--ops", metavar="LIST", help="Only these ops, such as rms_norm,Gemm, or none at all: none."
)
@click.option("--model-path", type=PATH, help="Where the checkpoint is now, if it has moved.")
@click.option(
    "--timeout", type=FiniteRange(0.1, 1e7), metavar="SECONDS", help="Stop PROGRAM after this long."
)
@click.option(
    "--max-log", type=BYTES, metavar="SIZE", help="Most tensor contents to keep, such as 20GiB."
)
@click.option("--keep-calls", type=PATH, metavar="FILE", help="Keep the log of calls in this file.")
@click.option(
    "--calls",
    "logs",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Read this log instead of running PROGRAM (repeatable, one for each process).",
)
@click.option(
    "--map", "ops_map", type=PATH, help="A map that says what operators and tensors are (TOML)."
)
@click.option(
    "--list", "listing", is_flag=True, help="Print a map to complete, of what is not known."
)
@goldens_option()
def trace_command(
    golden: Path, run: Path, program: tuple[str, ...], model_path: Path | None, **options: Any
) -> int:
    """Run PROGRAM as it is, and turn every op that it has InfiniCore compute into a run.

    PROGRAM and its arguments follow two dashes: trace GOLDEN RUN -- PROGRAM ARGS. It is
    not rebuilt: a library is preloaded into it, in front of InfiniCore's C API.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.model.checkpoint import Checkpoint
    from goldenctl.trace.calls import read_calls
    from goldenctl.trace.choose import chosen_part, parse_steps
    from goldenctl.trace.opmap import load_map

    _refuse_contradictions(program, options)
    source = open_golden(golden, kind="golden")
    layers = check_layers(options["replaying"].layers, source.config.num_hidden_layers)
    source = chosen_part(source, layers, parse_steps(options["steps"]))
    refuse_other(run, "run")
    with Checkpoint.open(recorded_folder(source, model_path)) as checkpoint:
        task = _Task(source, checkpoint, run, load_map(options["ops_map"]), options["listing"])
        if options["logs"]:
            return task.write([read_calls(path) for path in options["logs"]])
        kept = options["keep_calls"] or run.with_name(f"{run.name}.calls")
        refuse_other(kept, "calls")
        task.trace(_wanted(program, **options), kept, always=options["keep_calls"] is not None)
    return 0


def _refuse_contradictions(program: tuple[str, ...], options: dict[str, Any]) -> None:
    if not options["logs"] and not program:
        message = "no PROGRAM was given"
        raise UsageError(message, hint="trace GOLDEN RUN -- PROGRAM ARGS")
    if not options["logs"]:
        return
    for option, value in (
        ("PROGRAM", program),
        ("--ops", options["ops"]),
        ("--timeout", options["timeout"]),
        ("--max-log", options["max_log"]),
        ("--keep-calls", options["keep_calls"]),
    ):
        if value:
            message = f"--calls and {option}: a log that is there already is not traced again"
            raise UsageError(message)


def _wanted(
    program: tuple[str, ...],
    *,
    infini_root: Path | None,
    ops: str | None,
    timeout: float | None,
    max_log: int | None,
    **_: object,
) -> Wanted:
    from goldenctl.infini.find import find_install
    from goldenctl.trace.session import Wanted, chosen_ops

    install = find_install(infini_root)
    return Wanted(program, install, chosen_ops(ops, install), timeout, max_log)


@dataclass(frozen=True)
class _Task:
    """One golden, its checkpoint and the run to write; all is told on standard error."""

    golden: GoldenFile
    checkpoint: Checkpoint
    run: Path
    ops: OpMap
    listing: bool

    def trace(self, wanted: Wanted, kept: Path, *, always: bool) -> None:
        """Trace a program, and write the run of what it did.

        Its logs stay at ``kept`` when that is ``always`` wanted, or when not all went well.
        """
        from goldenctl.trace.session import keep, log_folder, rescue, trace

        with log_folder(kept) as logs:
            try:
                with _progress() as progress:
                    outcome = trace(wanted, self.checkpoint, logs, _building, progress)
                _tell(outcome)
                if any(call for calls in outcome.logs for call in calls.calls):
                    self.write(outcome.logs, outcome.book)
                if outcome.error is not None:
                    raise outcome.error
            except (GoldenctlError, KeyboardInterrupt):
                for place in rescue(logs, kept):
                    notify(f"what it did until then: goldenctl inspect {place}")
                raise
            if always:
                keep([calls.path for calls in outcome.logs], kept)

    def write(self, logs: Sequence[Calls], book: Book | None = None) -> int:
        """Write the run of what is in the logs of a program; return the exit code."""
        from goldenctl.studies.local import judge
        from goldenctl.trace.run import TraceOptions, write_run

        with progress_bar("naming") as progress:
            summary = write_run(
                self.golden,
                self.checkpoint.folder,
                logs,
                self.run,
                options=TraceOptions(judge, book=book, ops=self.ops, progress=progress),
            )
        for line in summary.listing if self.listing else ():
            click.echo(line)
        for line in summary.lines:
            notify(line)
        notify(f"wrote {self.run}; judge it: goldenctl diff {self.golden.path} {self.run}")
        return 0


def _tell(outcome: Outcome) -> None:
    logs = outcome.logs
    if not logs:
        return
    count = plural(sum(1 for calls in logs for _ in calls.calls), "call")
    size = human_bytes(sum(calls.path.stat().st_size for calls in logs))
    where = f" of {len(logs)} processes" if len(logs) > 1 else ""
    notify(f"traced {count}{where}, {size}, in {outcome.ending.took_s:.1f} s")
    notes = (f"{n.function}: {n.text}" for calls in logs for n in calls.notes if n.function)
    for note in dict.fromkeys(notes):
        notify(note)


def _building(line: str) -> None:
    """Pass on what is being done, without the output of compilers."""
    if line.startswith(("building ", "digesting ", "waiting ")):
        notify(line)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Count calls on standard error when that is a terminal.

    Where the program writes to the same terminal, now and then in a line of its own; else in one
    line, which goes at the end.
    """
    shown = sys.stderr is not None and sys.stderr.isatty()
    shared = sys.stdout is not None and sys.stdout.isatty()
    told = time.monotonic()

    def tell(calls: int, nbytes: int) -> None:
        nonlocal told
        line = f"tracing: {calls:,} calls, {human_bytes(nbytes)}"
        if shown and not shared:
            click.echo(f"\r\x1b[K{line} ", err=True, nl=False)
        elif shown and time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            click.echo(line, err=True)

    try:
        yield tell
    finally:
        if shown and not shared:
            click.echo("\r\x1b[K", err=True, nl=False)
