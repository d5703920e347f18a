"""``goldenctl diff``: score a run against its golden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, goldens_option, progress_bar
from goldenctl.commands.reporting import (
    EVERYTHING,
    NOWHERE,
    Outputs,
    Shown,
    deliver,
    deliver_matrix,
    refuse_of_one,
    refuse_unmatched,
    report_outputs,
    report_shown,
)
from goldenctl.errors import UsageError

# Elements of a tensor whose error is described on the console without being asked for.
_DESCRIBED = 4 << 20


@click.command("diff", short_help="Score runs and say which op goes wrong first")
@click.argument("golden", type=GOLDEN)
@click.argument("runs", type=GOLDEN, nargs=-1, metavar="[RUN]...")
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
def diff_command(golden: Path, runs: tuple[Path, ...], **options: object) -> int:
    """Score RUN against GOLDEN and say which op goes wrong first.

    Several RUNs, such as the same replay in several dtypes, are shown side by side; a RUN may
    also be a second golden, such as NAME@v2 beside NAME@v1 or one in another dtype; it is judged
    as a chain.
    With a report (diff --json) in place of GOLDEN and no RUN, judge it again, under
    another --tolerance if given, without the tensors. Ends with exit code 1 beyond tolerance.
    """
    if len(runs) > 1:
        return run_matrix(golden, runs, **options)  # type: ignore[arg-type]
    return run_diff(golden, runs[0] if runs else None, **options)  # type: ignore[arg-type]


def run_matrix(
    golden: Path,
    runs: Sequence[Path],
    *,
    tolerance: str = "default",
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
) -> int:
    """Compare every run with the golden and print them side by side; the worst exit code."""
    from msgspec.structs import replace

    from goldenctl.diff.judge import compare
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden

    policy = load_policy(tolerance)
    outputs.check()
    refuse_of_one(shown, len(runs))
    files = open_golden(golden), [open_golden(run) for run in runs]
    with progress_bar("comparing") as progress:
        reports = [compare(files[0], run, policy, progress=progress) for run in files[1]]
    return deliver_matrix([replace(report, command="diff") for report in reports], outputs, shown)


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
    from goldenctl.report.json import load_reports
    from goldenctl.sets.environment import told_apart

    policy = load_policy(tolerance)
    outputs.check()
    if run is None and golden.suffix != ".json":
        message = "diff needs a golden and a run, or one report that diff --json wrote"
        raise UsageError(message)
    if run is None:
        again = [rejudge(report, policy) for report in load_reports(golden)]
        if len(again) == 1:
            return deliver(again[0], outputs, shown)
        refuse_of_one(shown, len(again))
        return deliver_matrix(again, outputs, shown)
    with progress_bar("comparing") as progress:
        files = open_golden(golden), open_golden(run)
        refuse_unmatched(shown.only, files[0].tensors)
        report = compare(*files, policy, progress=progress)
        if outputs.pictures:
            report = illustrate(report, *files)
        elif (first := report.first_wrong) and math.prod(first.shape) <= _DESCRIBED:
            report = illustrate(report, *files, count=1)  # it says what the error looks like
        if files[1].kind == "golden":
            report = replace(report, differs=told_apart(*files))
    return deliver(replace(report, command=command), outputs, shown)
