"""``goldenctl list``, ``log`` and ``show``: which golden sets and versions there are."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import TEXT, goldens_option
from goldenctl.errors import EXIT_DAMAGED


@click.command("list", short_help="List the golden sets")
@goldens_option(expose=True)
def list_command(goldens: Path | None) -> int:
    """List the golden sets: the version that each manifest describes, and what is here.

    Ends with exit code 4 when a manifest is damaged.
    """
    from goldenctl.report.goldens import sets_table
    from goldenctl.report.render_console import show
    from goldenctl.sets.names import goldens_folder, list_sets

    sets = list_sets(goldens)
    if not sets:
        click.echo(f"there is no golden set in {goldens_folder(goldens)}")
        click.echo("goldenctl record CHECKPOINT --name NAME makes one")
        return 0
    table, errors = sets_table(sets)
    show([table])
    for error in errors:
        click.echo(f"goldenctl: {error}", err=True)
    return EXIT_DAMAGED if errors else 0


@click.command("log", short_help="Show a set's history")
@click.argument("name", type=TEXT)
@goldens_option(expose=True)
def log_command(name: str, goldens: Path | None) -> None:
    """Show the history of the golden set NAME, newest version first."""
    from goldenctl.report.goldens import history_table
    from goldenctl.report.render_console import show
    from goldenctl.sets.names import existing_set

    show([history_table(existing_set(name, goldens))])


@click.command("show", short_help="Show how a set or version was recorded")
@click.argument("name", metavar="NAME[@vN]", type=TEXT)
@click.option("-v", "--verbose", is_flag=True, help="List every tensor with its digest.")
@goldens_option(expose=True)
def show_command(name: str, verbose: bool, goldens: Path | None) -> None:
    """Show what the golden set NAME is made from, or one version of it.

    For the version that the manifest describes, the golden need not be here.
    """
    from goldenctl.golden.file import open_golden
    from goldenctl.report.goldens import manifest_view
    from goldenctl.report.inspect import file_view
    from goldenctl.report.render_console import show
    from goldenctl.sets.names import named_set
    from goldenctl.sets.renew import manifest_or_none
    from goldenctl.sets.resolve import current_version

    golden_set, version = named_set(name, goldens)
    version = version or current_version(golden_set)
    manifest = manifest_or_none(golden_set)
    if manifest is not None and manifest.version == version:
        show(manifest_view(golden_set, manifest, verbose=verbose))
    else:
        show(file_view(open_golden(golden_set.file(version), kind="golden")))
