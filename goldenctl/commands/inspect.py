"""``goldenctl inspect``: what is in a golden or run file, or in a traced program's log."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, goldens_option
from goldenctl.errors import UsageError


@click.command("inspect", short_help="Show what is in a golden or run")
@click.argument("file", type=GOLDEN)
@click.argument("tensor", required=False)
@goldens_option()
def inspect_command(file: Path, tensor: str | None) -> None:
    """Show FILE's provenance and tree, or one TENSOR's statistics and a corner of it.

    TENSOR is a full name, or any unique ending of one such as layers/03/attention/q_rope.
    For a log that trace kept, it shows the calls.
    """
    from goldenctl.exchange.records import is_log
    from goldenctl.golden.file import open_golden
    from goldenctl.report.inspect import file_view, tensor_view
    from goldenctl.report.render_console import show

    if is_log(file):
        _inspect_calls(file, tensor)
        return
    golden = open_golden(file)
    show(tensor_view(golden, tensor) if tensor else file_view(golden))


def _inspect_calls(file: Path, tensor: str | None) -> None:
    from goldenctl.report.calls import calls_view
    from goldenctl.report.render_console import show
    from goldenctl.trace.calls import read_calls

    if tensor is not None:
        message = f"{file}: is a log of calls, which has no tensor {tensor}"
        raise UsageError(message)
    show(calls_view(read_calls(file)))
