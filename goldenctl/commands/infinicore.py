"""``goldenctl infinicore``: which InfiniCore is used, and how to get one."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import PATH, os_errors_named


@click.group("infinicore", short_help="Show or install the InfiniCore that replays run on")
def infinicore_group() -> None:
    """Show or install the InfiniCore that replays run on."""


@infinicore_group.command("status")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
def status_command(infini_root: Path | None) -> None:
    """Say which install is used, its version, digests and devices."""
    from rich.console import Console
    from rich.table import Table

    from goldenctl.infini.find import find_install
    from goldenctl.infini.harness import status_lines

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in status_lines(find_install(infini_root)):
        table.add_row(key, value)
    Console(highlight=False, markup=False).print(table)


@infinicore_group.command("install")
@click.option(
    "--prefix",
    type=PATH,
    help="A new or empty folder, or an earlier install; goldenctl's own unless given.",
)
@click.option("--sdist", type=PATH, help="The source package, fetched elsewhere.")
def install_command(prefix: Path | None, sdist: Path | None) -> None:
    """Build the pinned InfiniCore's CPU libraries from its source package.

    An install that is whole stays as it is; a damaged one is built again.
    """
    from goldenctl.infini.provision import install

    with os_errors_named():
        done = install(prefix, sdist=sdist, progress=lambda line: click.echo(line, err=True))
    click.echo(f"InfiniCore is at {done.root}")
