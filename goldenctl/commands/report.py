"""``goldenctl report``: render a stored report again."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import PATH
from goldenctl.commands.reporting import (
    Outputs,
    Shown,
    deliver_all,
    report_outputs,
    report_shown,
)


@click.command("report", short_help="Render a stored report in other formats")
@click.argument("file", type=PATH)
@report_outputs
@report_shown
def report_command(file: Path, outputs: Outputs, shown: Shown) -> int:
    """Render FILE, a report that --json wrote, in other formats; no tensors are needed.

    Ends with exit code 0 whatever the verdict is; to judge a report again, pass it to diff.
    """
    from goldenctl.report.json import load_reports

    outputs.check()
    deliver_all(load_reports(file), outputs, shown)
    return 0
