"""``goldenctl cache``: what the cache holds, and a way to be rid of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from goldenctl.commands.options import human_bytes, os_errors_named, plural

# What each part is for, and so what it costs to be without.
_PARTS = {
    "harness": "built harnesses and trace libraries; built again when needed",
    "synth": "random checkpoints; made again when needed",
    "dequantised": "what quantised checkpoints are in float32; made again when needed",
    "fingerprints.json": "digests of checkpoints' files; read again when needed",
    "row-digests": "digests of checkpoints' rows, for trace; read again when needed",
}


@click.command("cache", short_help="Show the cache, or clear it")
@click.option("--clear", is_flag=True, help="Remove everything in it.")
def cache_command(clear: bool) -> None:
    """Show what the cache folder holds, with sizes; everything in it can be made again.

    It is $GOLDENCTL_CACHE, or goldenctl under $XDG_CACHE_HOME or ~/.cache.
    """
    from goldenctl.folders import cache_folder

    folder = cache_folder()
    parts = sorted(folder.iterdir()) if folder.is_dir() else []
    sizes = {path: _size(path) for path in parts}
    for path, size in sizes.items():
        said = _PARTS.get(path.name, "")
        click.echo(f"{human_bytes(size):>10}  {path.name}{f': {said}' if said else ''}")
    total = f"{human_bytes(sum(sizes.values()))} in {folder}"
    if not clear:
        click.echo(f"{total}; --clear removes it" if parts else f"{folder}: nothing is there")
        return
    with os_errors_named(folder):
        for path in parts:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    click.echo(f"removed {plural(len(parts), 'part')}, {total}")


def _size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; links are not followed."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
