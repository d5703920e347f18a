"""``goldenctl faults``: the bugs that replay can inject."""

from __future__ import annotations

import click


@click.command("faults", short_help="List the bugs that can be injected")
def faults_command() -> None:
    """List the faults that replay --inject knows, and the ops that each applies to."""
    from rich.table import Table

    from goldenctl.ops.catalogue import FAULTS
    from goldenctl.report.render_console import make_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("fault", "what is wrong", "ops"):
        table.add_column(title, overflow="fold")
    for fault in FAULTS.values():
        ops = "any" if len(fault.kinds) > 3 else ", ".join(fault.kinds)
        table.add_row(fault.name, fault.title, ops)
    make_console().print(table)
