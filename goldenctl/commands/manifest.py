"""``goldenctl manifest``: write or renew the manifest of a golden set."""

from __future__ import annotations

from pathlib import Path

import click

from goldenctl.commands.options import TEXT, goldens_option


@click.command("manifest", short_help="Write or renew a set's manifest")
@click.argument("name", metavar="NAME[@vN]", type=TEXT)
@click.option(
    "--tolerance",
    metavar="NAME|FILE",
    help="Judge by this from now on: default, classic, or a TOML file.",
)
@click.option("--note", type=TEXT, default="", help="A line for the set's history.")
@click.option("--renew", is_flag=True, help="Renew even if a tensor changed in meaning.")
@goldens_option(expose=True)
def manifest_command(
    name: str, tolerance: str | None, note: str, renew: bool, goldens: Path | None
) -> int:
    """Write the manifest of a golden set, or renew it to describe another version.

    By default it describes the newest version here. Every change is listed; if a tensor changed in
    meaning, nothing is written without --renew, and the exit code is 1.
    """
    from goldenctl.commands.sets import renew as renew_manifest
    from goldenctl.diff.tolerance import load_policy
    from goldenctl.sets.names import locked, named_set, newest_version

    golden_set, version = named_set(name, goldens)
    policy = load_policy(tolerance) if tolerance is not None else None
    with locked(golden_set):
        version = version or newest_version(golden_set)
        golden_set.file(version)
        return renew_manifest(golden_set, version, tolerance=policy, note=note, force=renew)
