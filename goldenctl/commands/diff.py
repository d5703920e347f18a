"""``goldenctl diff``: score a run against its golden."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, goldens_option, progress_bar
from goldenctl.commands.reporting import (
    EVERYTHING,
    NOWHERE,
    Outputs,
    Shown,
    deliver,
    report_outputs,
    report_shown,
)
from goldenctl.errors import UsageError


@click.command("diff")
@click.argument("golden", type=GOLDEN)
@click.argument("run", type=GOLDEN, required=False)
@click.option(
    "--tolerance",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="default, classic, or a TOML file.",
)
@report_outputs
@report_shown
@goldens_option()
def diff_command(golden: Path, run: Path | None, **options: object) -> int:
    """Score RUN against GOLDEN and say which op goes wrong first.

    With a report (diff --json) in place of GOLDEN and no RUN, judge it again, under
    another --tolerance if given, without the tensors. Ends with exit code 1 beyond tolerance.
    """
    return run_diff(golden, run, **options)  # type: ignore[arg-type]


def run_diff(
    golden: Path,
    run: Path | None,
    *,
    tolerance: str = "default",
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
    command: str = "diff",
) -> int:
    """Compare or judge again, print, write; return the exit code."""
    from msgspec.structs import replace

    from goldenctl.diff.illustrate import illustrate
    from goldenctl.diff.judge import compare
    from goldenctl.diff.rejudge import rejudge
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.report.json import load_report

    policy = load_policy(tolerance)
    outputs.check()
    if run is None and golden.suffix != ".json":
        message = "diff needs a golden and a run, or one report that diff --json wrote"
        raise UsageError(message)
    if run is None:
        report = rejudge(load_report(golden), policy)
    else:
        with progress_bar("comparing") as progress:
            files = open_golden(golden), open_golden(run)
            report = compare(*files, policy, progress=progress)
            if outputs.pictures:
                report = illustrate(report, *files)
        report = replace(report, command=command)
    return deliver(report, outputs, shown)
