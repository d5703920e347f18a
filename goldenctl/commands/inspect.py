"""``goldenctl inspect``: what is in a golden or run file."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import GOLDEN, goldens_option


@click.command("inspect", short_help="Show what is in a golden or run")
@click.argument("file", type=GOLDEN)
@click.argument("tensor", required=False)
@goldens_option()
def inspect_command(file: Path, tensor: str | None) -> None:
    """Show FILE's provenance and tree, or one TENSOR's statistics and a corner of it.

    TENSOR is a full name, or any unique ending of one such as layers/03/attention/q_rope.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.report.console_parts import make_console
    from goldenctl.report.inspect import file_view, tensor_view

    golden = open_golden(file)
    view = tensor_view(golden, tensor) if tensor else file_view(golden)
    make_console().print(view, crop=False)
