"""``goldenctl blame``: find every culprit, name its bug, and show how its error spreads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.engine import Engine, silent
from goldenctl.commands.groups import takes
from goldenctl.commands.options import GOLDEN, check_layers, goldens_option, notify, recorded_folder
from goldenctl.commands.reporting import (
    Outputs,
    Shown,
    deliver,
    refuse_unmatched,
    report_outputs,
    report_shown,
)
from goldenctl.errors import UsageError
from goldenctl.folders import scratch
from goldenctl.replay.options import Options

if TYPE_CHECKING:
    from goldenctl.golden.file import GoldenFile


@click.command("blame", short_help="Find every culprit and name its bug")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=GOLDEN, required=False)
@takes("engine", Engine)
@takes("options", Options, "device", "layers", "faults", "compiled")
@click.option("--tolerance", default="default", show_default=True, help="As for diff.")
@report_outputs
@report_shown
@goldens_option()
def blame_command(
    golden: Path,
    run: Path | None,
    engine: Engine,
    options: Options,
    tolerance: str,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Replay GOLDEN by sublayer, by op and as a chain; name the culprits and their bugs.

    Of a golden of modules, each call is replayed from its recorded inputs and as a chain: a culprit
    is a module that is wrong though every module inside it is right.

    With RUN, which `goldenctl trace` wrote, nothing is replayed: its ops are explained from what
    the engine itself gave them. Ends with exit code 1 when there is a culprit.
    """
    from goldenctl.commands.replay_modules import refuse_of_modules
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.calls import is_of_modules
    from goldenctl.golden.file import open_golden
    from goldenctl.replay.backend import parse_device
    from goldenctl.replay.effect import refuse_without_effect
    from goldenctl.studies.blame import Investigation

    engine.refuse_simulated("blame: a simulated backend has no culprits")
    outputs.check()
    source = open_golden(golden, kind="golden")
    refuse_unmatched(shown.only, source.tensors)
    if run is not None:
        return _of_trace(source, run, engine.model_path, tolerance, outputs=outputs, shown=shown)
    if is_of_modules(source.recipe):
        return _of_modules(source, engine, options, tolerance, outputs=outputs, shown=shown)
    refuse_of_modules(engine, options)
    parse_device(options.device)
    check_layers(options.layers, source.config.num_hidden_layers)
    opened = engine.open(quiet=shown.quiet)
    checkpoint = engine.folder(source)
    refuse_without_effect(source, checkpoint, backend=opened, options=options)
    with scratch() as folder:
        investigation = Investigation(
            source,
            checkpoint,
            backend=opened,
            options=options,
            policy=load_policy(tolerance),
            folder=Path(folder),
            notify=silent if shown.quiet else notify,
        )
        report = investigation.run()
    return deliver(report, outputs, shown)


def _of_modules(
    golden: GoldenFile,
    engine: Engine,
    options: Options,
    tolerance: str,
    *,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Find the calls of modules that are wrong by themselves."""
    from goldenctl.commands.replay_modules import prepare_modules
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.studies.module_blame import ModuleInvestigation

    how, subject = prepare_modules(golden, engine, options)
    policy, said = load_policy(tolerance), silent if shown.quiet else notify
    with scratch() as folder:
        found = ModuleInvestigation(golden, subject, how, policy, folder, said)
        report = found.run()
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
        notify=silent if shown.quiet else notify,
    )
    return deliver(report, outputs, shown)
