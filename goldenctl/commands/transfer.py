"""``goldenctl push`` and ``pull``: goldens to and from a store, by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldenctl.commands.options import BYTES, TEXT, goldens_option, human_bytes, os_errors_named
from goldenctl.errors import DamagedError, MissingError, UsageError

if TYPE_CHECKING:
    from goldenctl.remote.stores import Store
    from goldenctl.sets.manifest import VersionEntry
    from goldenctl.sets.names import GoldenSet

Wanted = list[tuple["GoldenSet", "VersionEntry"]]


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--store URL``."""
    return click.option(
        "--store",
        type=TEXT,
        metavar="URL",
        help="A folder or any fsspec URL; $GOLDENCTL_STORE, or store in DIR/goldenctl.toml.",
    )(function)


@click.command("push", short_help="Send goldens to a store")
@click.argument("names", metavar="[NAME[@vN]]...", type=TEXT, nargs=-1)
@store_option
@click.option(
    "--part-size",
    type=BYTES,
    default="32MiB",
    show_default=True,
    help="Larger files are sent in parts of this size.",
)
@goldens_option(expose=True)
def push_command(
    names: tuple[str, ...], store: str | None, part_size: int, goldens: Path | None
) -> None:
    """Send goldens to a store: for NAME all versions that are here, for NAME@vN that version.

    Without names, every set. What the store has is not sent again, and an interrupted push
    continues where it stopped. Others then need only the manifests: goldenctl pull NAME.
    """
    from goldenctl.remote.place import find_store
    from goldenctl.remote.stores import open_store
    from goldenctl.remote.transfer import LEAST_PART_BYTES, MOST_PART_BYTES
    from goldenctl.sets.names import goldens_folder

    if not LEAST_PART_BYTES <= part_size <= MOST_PART_BYTES:
        msg = f"--part-size {part_size}: expected {LEAST_PART_BYTES} bytes to 256MiB"
        raise UsageError(msg)
    target = open_store(find_store(store, goldens_folder(goldens)))
    wanted, absent = _to_push(names, goldens)
    for golden_set, entry in wanted:
        _push(target, golden_set, entry, part_size)
    for golden_set, entry in absent:
        _require_there(target, golden_set, entry)
    if not wanted and not absent:
        click.echo("there is nothing to push")


@click.command("pull", short_help="Bring goldens from a store")
@click.argument("names", metavar="[NAME[@vN]]...", type=TEXT, nargs=-1)
@store_option
@click.option("--all", "every", is_flag=True, help="Bring every version in the manifests' history.")
@click.option("--force", is_flag=True, help="Replace a file that is not what the manifest says.")
@goldens_option(expose=True)
def pull_command(
    names: tuple[str, ...], store: str | None, every: bool, force: bool, goldens: Path | None
) -> None:
    """Bring goldens from a store: for NAME the version that its manifest describes, for NAME@vN
    that version.

    Without names, every set. Only the manifests need to be here. What is here already is not
    fetched again, and an interrupted pull continues where it stopped. A file gets its name only
    once its digest is the manifest's.
    """
    from goldenctl.remote.place import find_store
    from goldenctl.remote.stores import open_store
    from goldenctl.sets.names import goldens_folder

    source = open_store(find_store(store, goldens_folder(goldens)))
    wanted = _to_pull(names, goldens, every=every)
    for golden_set, entry in wanted:
        _pull(source, golden_set, entry, force=force)
    if not wanted:
        click.echo("there is nothing to pull: no set has a manifest")


def _sets(names: tuple[str, ...], goldens: Path | None) -> list[tuple[GoldenSet, int | None]]:
    from goldenctl.sets.names import list_sets, named_set

    if names:
        return [named_set(name, goldens) for name in names]
    return [(found, None) for found in list_sets(goldens) if found.manifest_path.is_file()]


def _to_push(names: tuple[str, ...], goldens: Path | None) -> tuple[Wanted, Wanted]:
    """Return the versions to send, and those that only the store may have."""
    from goldenctl.sets.manifest import load_manifest

    here, absent = [], []
    for golden_set, version in _sets(names, goldens):
        manifest = load_manifest(golden_set)
        versions = golden_set.versions()
        for entry in manifest.versions:
            if entry.version in versions and version in (None, entry.version):
                here.append((golden_set, entry))
            elif entry.version == (version or manifest.version):
                absent.append((golden_set, entry))
        _require_version(golden_set, version, [entry.version for entry in manifest.versions])
    return here, absent


def _to_pull(names: tuple[str, ...], goldens: Path | None, *, every: bool) -> Wanted:
    from goldenctl.sets.manifest import load_manifest

    wanted = []
    for golden_set, version in _sets(names, goldens):
        manifest = load_manifest(golden_set)
        _require_version(golden_set, version, [entry.version for entry in manifest.versions])
        wanted += [
            (golden_set, entry)
            for entry in manifest.versions
            if (every and version is None) or entry.version == (version or manifest.version)
        ]
    return wanted


def _require_version(golden_set: GoldenSet, version: int | None, known: list[int]) -> None:
    if version is not None and version not in known:
        listed = ", ".join(f"v{number}" for number in known)
        msg = f"{golden_set.name}@v{version}: {golden_set.manifest_path} does not mention it"
        raise UsageError(msg, hint=f"it knows {listed}")


def _push(store: Store, golden_set: GoldenSet, entry: VersionEntry, part_size: int) -> None:
    from goldenctl.remote.transfer import send

    path = golden_set.file(entry.version)
    label = f"{golden_set.name}@v{entry.version}"
    size = path.stat().st_size
    with transfer_bar(f"pushing {label}", size) as progress, os_errors_named(path):
        digest = entry.digest
        sent = send(store, path, digest, part_bytes=part_size, progress=progress)
    if not sent.sent_bytes:
        click.echo(f"{label}: {store.name} has it already")
        return
    there = f", {human_bytes(sent.there_bytes)} were there" if sent.there_bytes else ""
    click.echo(f"{label}: sent {human_bytes(sent.sent_bytes)} to {store.name}{there}")


def _require_there(store: Store, golden_set: GoldenSet, entry: VersionEntry) -> None:
    from goldenctl.remote.transfer import has

    label = f"{golden_set.name}@v{entry.version}"
    if not has(store, entry.digest, entry.bytes):
        msg = f"{label}: is neither here nor in {store.name}"
        raise MissingError(msg, hint="push it from a machine that has it, or record it again")
    click.echo(f"{label}: {store.name} has it already")


def _pull(store: Store, golden_set: GoldenSet, entry: VersionEntry, *, force: bool) -> None:
    from goldenctl.remote.transfer import fetch
    from goldenctl.sets.names import locked, refuse_leading_out

    label = f"{golden_set.name}@v{entry.version}"
    path = golden_set.path(entry.version)
    with locked(golden_set), os_errors_named(path):
        refuse_leading_out(path, golden_set.folder)
        if path.exists() and _is_it(path, entry):
            click.echo(f"{label}: is here already")
            return
        if path.exists() and not force:
            msg = f"{path}: is not the {label} that {golden_set.manifest_path} describes"
            raise DamagedError(msg, hint="move it away, or pass --force to replace it")
        digest = entry.digest
        with transfer_bar(f"pulling {label}", entry.bytes) as progress:
            came = fetch(store, digest, entry.bytes, path, progress=progress)
    kept = entry.bytes - came
    before = f", {human_bytes(kept)} were here" if kept else ""
    click.echo(f"{label}: {human_bytes(came)} from {store.name}{before}")


def _is_it(path: Path, entry: VersionEntry) -> bool:
    from goldenctl.digests import algorithm_of, of_file

    known = entry.digest
    return path.stat().st_size == entry.bytes and of_file(path, algorithm_of(known)) == known


@contextmanager
def transfer_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show bytes, speed and time left on standard error when that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
