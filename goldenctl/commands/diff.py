"""``goldenctl diff``: score a run against its golden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import (
    GOLDEN_OR_FOLDER,
    goldens_option,
    progress_bar,
    strict_option,
    was_given,
)
from goldenctl.commands.reporting import (
    EVERYTHING,
    NOWHERE,
    Outputs,
    Shown,
    deliver,
    deliver_all,
    deliver_matrix,
    refuse_of_one,
    refuse_unmatched,
    report_outputs,
    report_shown,
)
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.records.report import Report

# Elements of a tensor whose error is described on the console without being asked for.
_DESCRIBED = 4 << 20


@click.command("diff", short_help="Score runs and say which op goes wrong first")
@click.argument("golden", type=GOLDEN_OR_FOLDER)
@click.argument("runs", type=GOLDEN_OR_FOLDER, nargs=-1, metavar="[RUN]...")
@click.option(
    "--tolerance",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="default, classic, or a TOML file.",
)
@strict_option
@report_outputs
@report_shown
@goldens_option()
def diff_command(golden: Path, runs: tuple[Path, ...], **options: object) -> int:
    """Score RUN against GOLDEN and say which op goes wrong first.

    Several RUNs, such as the same replay in several dtypes, are shown side by side; a RUN may also
    be a second golden, such as NAME@v2 beside NAME@v1 or one in another dtype; it is judged as a
    chain. With a report (diff --json) in place of GOLDEN and no RUN, judge it again, under another
    --tolerance if given, without the tensors; a report of check or selftest is shown as it is.
    GOLDEN and RUN may be two folders: each golden is held against the run of its name. Ends with
    exit code 1 beyond tolerance.
    """
    if golden.is_dir() and len(runs) == 1 and runs[0].is_dir():
        return run_folders(golden, runs[0], **options)  # type: ignore[arg-type]
    if not runs:
        if options.pop("strict"):
            message = "--strict: a stored report stands as it was judged"
            raise UsageError(message, hint="goldenctl diff --strict GOLDEN RUN")
        return run_again(golden, other=was_given("tolerance"), **options)  # type: ignore[arg-type]
    if len(runs) > 1:
        return run_matrix(golden, runs, **options)  # type: ignore[arg-type]
    return run_diff(golden, runs[0], **options)  # type: ignore[arg-type]


def run_folders(
    goldens: Path,
    runs: Path,
    *,
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
    **how: Any,
) -> int:
    """Compare every golden of a folder with the run of the same name; the worst exit code.

    Raises UsageError for a golden without a run, and for a report's file, which is of one pair.
    """
    names = sorted(path.name for path in goldens.glob("*.h5"))
    if not names:
        message = f"{goldens}: has no *.h5 file"
        raise UsageError(message)
    if lacking := [name for name in names if not (runs / name).is_file()]:
        message = f"{runs}: has no {lacking[0]}, which {goldens} has"
        raise UsageError(message, hint=f"replay {goldens / lacking[0]} to it")
    if outputs.paths:
        option = next(iter(outputs.paths))
        message = f"--{option}: a file holds the report of one golden, {goldens} has {len(names)}"
        raise UsageError(message, hint="diff them one by one")
    codes = []
    for name in names:
        if not shown.quiet:
            click.echo(f"{name}:" if name == names[0] else f"\n{name}:")
        codes.append(run_diff(goldens / name, runs / name, shown=shown, **how))
    if not shown.quiet:
        good = codes.count(0)
        verdict = "✓ PASS" if good == len(codes) else "✗ FAIL"
        click.echo(f"\n{verdict}  {good} of {len(codes)} runs within tolerance")
    return max(codes)


def run_again(
    file: Path,
    *,
    tolerance: str = "default",
    other: bool = False,
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
) -> int:
    """Judge a stored report again, print, write; return the exit code.

    ``other`` says that the tolerance was asked for: a report that none can judge is refused.
    """
    from goldenctl.diff.rejudge import rejudge
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.report.json import load_reports

    policy = load_policy(tolerance)
    outputs.check()
    if file.suffix != ".json":
        message = "diff needs a golden and a run, or one report that diff --json wrote"
        raise UsageError(message)
    reports = load_reports(file)
    if other:
        _refuse_final(file, reports, tolerance)
    return deliver_all([rejudge(report, policy) for report in reports], outputs, shown)


def _refuse_final(file: Path, reports: Sequence[Report], tolerance: str) -> None:
    """Raise UsageError where a tolerance was asked for that would change nothing."""
    from goldenctl.diff.rejudge import FINAL

    for report in reports:
        if report.command in FINAL:
            message = f"{file}: a report of {report.command} cannot be judged again"
            hint = f"goldenctl report {file} shows it as it is"
            if report.command == "check":
                hint = f"run goldenctl check --tolerance {tolerance}"
            raise UsageError(message, hint=hint)


def run_matrix(
    golden: Path,
    runs: Sequence[Path],
    *,
    tolerance: str = "default",
    strict: bool = False,
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
) -> int:
    """Compare every run with the golden and print them side by side; the worst exit code."""
    from msgspec.structs import replace

    from goldenctl.diff.judge import compare
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_goldens

    policy = load_policy(tolerance)
    outputs.check()
    refuse_of_one(shown, len(runs))
    expected, *others = open_goldens((golden, *runs))
    with progress_bar("comparing") as progress:
        reports = [
            compare(expected, run, policy, strict=strict, progress=progress) for run in others
        ]
    return deliver_matrix([replace(report, command="diff") for report in reports], outputs, shown)


def run_diff(
    golden: Path,
    run: Path,
    *,
    tolerance: str = "default",
    strict: bool = False,
    outputs: Outputs = NOWHERE,
    shown: Shown = EVERYTHING,
    command: str = "diff",
) -> int:
    """Compare, print, write; return the exit code."""
    from msgspec.structs import replace

    from goldenctl.diff.illustrate import illustrate
    from goldenctl.diff.judge import compare
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.golden.file import open_goldens
    from goldenctl.sets.environment import told_apart

    policy = load_policy(tolerance)
    outputs.check()
    with progress_bar("comparing") as progress:
        expected, actual = open_goldens((golden, run))
        files = expected, actual
        refuse_unmatched(shown.only, files[0].tensors)
        report = compare(*files, policy, strict=strict, progress=progress)
        if outputs.pictures:
            report = illustrate(report, *files)
        elif (first := report.first_wrong) and math.prod(first.shape) <= _DESCRIBED:
            report = illustrate(report, *files, count=1)  # it says what the error looks like
        if files[1].kind == "golden":
            report = replace(report, differs=told_apart(*files))
    return deliver(replace(report, command=command), outputs, shown)
