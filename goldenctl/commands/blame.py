"""``goldenctl blame``: find every culprit, name its bug, and show how its error spreads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import GOLDEN, PATH, goldens_option, parse_layers, recorded_folder
from goldenctl.commands.reporting import (
    Outputs,
    Shown,
    deliver,
    refuse_unmatched,
    report_outputs,
    report_shown,
)
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile


@click.command("blame", short_help="Find every culprit and name its bug")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=GOLDEN, required=False)
@click.option("--backend", default="infinicore", show_default=True, help="As for replay.")
@click.option("--model-path", type=PATH, help="The checkpoint, when it has moved.")
@click.option("--device", default="cpu", show_default=True, help="As for replay.")
@click.option("--layers", metavar="LIST", help="Only these decoder layers.")
@click.option("--inject", "faults", multiple=True, metavar="FAULT[@PLACE]", help="As for replay.")
@click.option("--tolerance", default="default", show_default=True, help="As for diff.")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
@report_outputs
@report_shown
@goldens_option()
def blame_command(
    golden: Path,
    run: Path | None,
    backend: str,
    model_path: Path | None,
    device: str,
    layers: str | None,
    faults: tuple[str, ...],
    tolerance: str,
    infini_root: Path | None,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Replay GOLDEN by sublayer, by op and as a chain; name the culprits and their bugs.

    With RUN, which `goldenctl trace` wrote, nothing is replayed: its ops are explained from what
    the engine itself gave them. Ends with exit code 1 when there is a culprit.
    """
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.ops.inject import parse_injection
    from goldenctl.replay.backend import open_backend, parse_device
    from goldenctl.replay.effect import refuse_without_effect
    from goldenctl.replay.run import Options
    from goldenctl.studies.blame import Investigation

    if backend == "simulated":
        message = "blame: a simulated backend has no culprits"
        raise UsageError(message, hint="use infinicore, torch or exec:PROGRAM")
    outputs.check()
    notify = _silent if shown.quiet else _notify
    source = open_golden(golden, kind="golden")
    refuse_unmatched(shown.only, source.tensors)
    if run is not None:
        return _of_trace(source, run, model_path, tolerance, outputs=outputs, shown=shown)
    parse_device(device)
    count = source.config.num_hidden_layers
    options = Options(
        device=device,
        layers=parse_layers(layers, count),
        faults=tuple(parse_injection(text) for text in faults),
    )
    opened = open_backend(backend, infini_root=infini_root, notify=notify)
    checkpoint = recorded_folder(source, model_path)
    refuse_without_effect(source, checkpoint, backend=opened, options=options)
    with tempfile.TemporaryDirectory(prefix="goldenctl-") as folder:
        investigation = Investigation(
            source,
            checkpoint,
            backend=opened,
            options=options,
            policy=load_policy(tolerance),
            folder=Path(folder),
            notify=notify,
        )
        report = investigation.run()
    return deliver(report, outputs, shown)


def _of_trace(
    golden: GoldenFile,
    run: Path,
    model_path: Path | None,
    tolerance: str,
    *,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Explain a traced run. UsageError for any other: blame replays by itself."""
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.records.structure import MODE
    from goldenctl.studies.trace_blame import blame_run

    file = open_golden(run, kind="run")
    if file.recipe.get("mode") != MODE:
        message = f"{run}: was not written by trace, so there is nothing to explain from it"
        raise UsageError(message, hint=f"goldenctl blame {golden.path} replays by itself")
    report = blame_run(
        golden,
        file,
        recorded_folder(golden, model_path),
        policy=load_policy(tolerance),
        notify=_silent if shown.quiet else _notify,
    )
    return deliver(report, outputs, shown)


def _notify(message: str) -> None:
    click.echo(message, err=True)


def _silent(_message: str) -> None:
    pass
