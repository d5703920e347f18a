"""``goldenctl rm`` and ``gc``: take versions and leftovers away."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldenctl.commands.options import TEXT, goldens_option, human_bytes, os_errors_named, plural
from goldenctl.errors import UsageError

if TYPE_CHECKING:
    from goldenctl.sets.names import GoldenSet


@click.command("rm", short_help="Remove a version or a set")
@click.argument("name", metavar="NAME[@vN]", type=TEXT)
@click.option(
    "--force", is_flag=True, help="Remove even what the manifest needs, or a whole set; asks first."
)
@click.option("--yes", is_flag=True, help="With --force: do not ask.")
@goldens_option(expose=True)
def rm_command(name: str, force: bool, yes: bool, goldens: Path | None) -> None:
    """Remove a version, or with --force the whole set NAME.

    The version that a manifest describes is kept unless --force is given.
    """
    from goldenctl.sets.names import locked, named_set

    golden_set, version = named_set(name, goldens)
    with locked(golden_set), os_errors_named(golden_set.folder):
        if version is None:
            _remove_set(golden_set, force=force, yes=yes)
        else:
            _remove_version(golden_set, version, force=force, yes=yes)


def _remove_version(golden_set: GoldenSet, version: int, *, force: bool, yes: bool) -> None:
    from goldenctl.golden.times import times_path
    from goldenctl.sets.renew import manifest_or_none

    path = golden_set.path(version)
    size = human_bytes(golden_set.file(version).stat().st_size)
    manifest = manifest_or_none(golden_set)
    if manifest is not None and manifest.version == version:
        what = f"{golden_set.name}@v{version}: {golden_set.manifest_path} describes this version"
        if not force:
            hint = "pass --force to remove it nevertheless, or let it describe another version"
            raise UsageError(what, hint=hint)
        _ask(f"{what}. Remove {path} ({size})?", yes=yes)
    path.unlink()
    times_path(path).unlink(missing_ok=True)
    click.echo(f"removed {path} ({size})")


def _remove_set(golden_set: GoldenSet, *, force: bool, yes: bool) -> None:
    from goldenctl.sets.names import LOCK

    versions = len(golden_set.versions())
    if any(path.name != LOCK for path in golden_set.folder.iterdir()):
        _agree(golden_set, versions, force=force, yes=yes)
    shutil.rmtree(golden_set.folder)
    click.echo(f"removed {golden_set.folder}")


def _agree(golden_set: GoldenSet, versions: int, *, force: bool, yes: bool) -> None:
    """Raise UsageError unless the user agrees that a whole set goes."""
    what = f"{golden_set.name}: the whole set, {plural(versions, 'version')} and its manifest"
    if not force:
        raise UsageError(what, hint=f"name one, such as {golden_set.name}@v1, or pass --force")
    _ask(f"{what}. Remove {golden_set.folder}?", yes=yes)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    message = "nothing was removed"
    try:
        agreed = click.confirm(question)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            raise UsageError(message, hint="there is no terminal to ask on; pass --yes") from error
        raise
    if not agreed:
        raise UsageError(message, hint="answer y, or pass --yes")


@click.command("gc", short_help="Remove what no manifest mentions")
@click.argument("names", metavar="[NAME]...", type=TEXT, nargs=-1)
@click.option(
    "--dry-run/--delete",
    default=True,
    show_default=True,
    help="Only say what would be removed, or remove it.",
)
@goldens_option(expose=True)
def gc_command(names: tuple[str, ...], dry_run: bool, goldens: Path | None) -> None:
    """Remove what no manifest mentions, of all sets or of the sets named.

    That is: versions that are not in the history of their set's manifest, timing files without
    their golden, interrupted recordings, and temporary files of processes that have ended. A set
    without a manifest keeps its versions.
    """
    from goldenctl.sets.garbage import garbage, remove, size_bytes
    from goldenctl.sets.names import existing_set, list_sets, locked

    sets = [existing_set(name, goldens) for name in names] or list_sets(goldens)
    total, count = 0, 0
    for golden_set in sets:
        folder = golden_set.folder
        with nullcontext() if dry_run else locked(golden_set), os_errors_named(folder):
            for path, reason in garbage(golden_set):
                size = size_bytes(path)
                total, count = total + size, count + 1
                click.echo(f"{path}  {human_bytes(size)}, {reason}")
                if not dry_run:
                    remove(path)
    done = "would be removed; --delete removes them" if dry_run else "removed"
    click.echo(f"{count} files, {human_bytes(total)}, {done}" if count else "nothing to remove")
