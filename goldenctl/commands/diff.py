"""``goldenctl diff``: score a run against its golden."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, PATH, goldens_option, progress_bar, refuse_unwritable
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
@click.option("--json", "json_path", type=PATH, help="Also write the report as JSON.")
@click.option("--worst", type=click.IntRange(1), metavar="N", help="The N worst sublayers first.")
@click.option("-v", "--verbose", is_flag=True, help="Show every tensor.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit code tells.")
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
    json_path: Path | None = None,
    worst: int | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Compare or judge again, print, write; return the exit code."""
    from goldenctl.diff.judge import compare
    from goldenctl.diff.rejudge import rejudge
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_golden
    from goldenctl.report.console import print_report
    from goldenctl.report.json import load_report, save_report

    policy = load_policy(tolerance)
    if json_path is not None:
        refuse_unwritable(json_path)
    if run is None and golden.suffix != ".json":
        message = "diff needs a golden and a run, or one report that diff --json wrote"
        raise UsageError(message)
    if run is None:
        report = rejudge(load_report(golden), policy)
    else:
        with progress_bar("comparing") as progress:
            files = open_golden(golden), open_golden(run)
            report = compare(*files, policy, progress=progress)
    if json_path is not None:
        save_report(report, json_path)
    if not quiet:
        print_report(report, worst=worst, verbose=verbose)
    return report.exit_code
