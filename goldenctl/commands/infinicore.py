"""``goldenctl infinicore``: which InfiniCore is used, and how to get one."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import PATH, os_errors_named
from goldenctl.errors import EXIT_OK, MissingError, printable


@click.group("infinicore", short_help="Show or install the InfiniCore that replays run on")
def infinicore_group() -> None:
    """Show or install the InfiniCore that replays run on."""


@infinicore_group.command("status")
@click.option("--infini-root", type=PATH, help="InfiniCore's install folder.")
def status_command(infini_root: Path | None) -> int:
    """Say which install is used, its version, digests and devices.

    Devices are listed by a program that is built on first use; if it cannot be built, everything
    else is still shown and the exit code is 3.
    """
    from goldenctl.infini.find import find_install
    from goldenctl.infini.harness import device_rows

    install = find_install(infini_root)
    _say(install.rows)
    try:
        _say(device_rows(install))
    except MissingError as error:
        _say([("devices", f"unknown: {error}")])
        return error.exit_code
    return EXIT_OK


def _say(rows: list[tuple[str, str]]) -> None:
    """Print rows of what and value, each on a line of its own however long it is."""
    for what, value in rows:
        click.echo(printable(f"{what}: {value}"))


@infinicore_group.command("install")
@click.option(
    "--prefix",
    type=PATH,
    help="A new or empty folder, or an earlier install; by default goldenctl's own.",
)
@click.option("--sdist", type=PATH, help="A source package that was downloaded before.")
def install_command(prefix: Path | None, sdist: Path | None) -> None:
    """Build the pinned InfiniCore's CPU libraries from its source package.

    A complete install is left alone; a damaged one is built again.
    """
    from goldenctl.folders import provisioned_prefix
    from goldenctl.infini.provision import install

    with os_errors_named(prefix or provisioned_prefix()):
        done = install(prefix, sdist=sdist, progress=lambda line: click.echo(line, err=True))
    click.echo(f"InfiniCore is at {done.root}")
