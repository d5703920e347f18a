"""Files of a golden set that nobody needs, and their removal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from goldenctl.atomic import leftovers
from goldenctl.golden.times import times_path
from goldenctl.sets.names import GoldenSet
from goldenctl.sets.renew import manifest_or_none


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all that is in a folder; links are not followed."""
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return path.lstat().st_size + sum(each.lstat().st_size for each in inner)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def garbage(golden_set: GoldenSet) -> Iterator[tuple[Path, str]]:
    """Yield each file of a set that can go, and why.

    Raises DamagedError when the manifest is damaged: it cannot say what it needs.
    """
    manifest = manifest_or_none(golden_set)
    for path in leftovers(golden_set.folder):
        yield path, "left by a process that ended"
    for path in sorted(golden_set.folder.glob(".*.pull.part")):
        yield path, "left by an interrupted pull, which would go on from it"
    for path in sorted(golden_set.folder.glob("*.resume")):
        yield path, "an interrupted recording that --resume could go on with"
    known = {entry.version for entry in manifest.versions} if manifest else None
    gone = []
    for version in golden_set.versions():
        if known is not None and version not in known:
            gone.append(golden_set.path(version))
            yield gone[-1], f"v{version} is not in the manifest"
    kept = {times_path(golden_set.path(version)) for version in golden_set.versions()}
    kept -= {times_path(path) for path in gone}
    for path in sorted(golden_set.folder.glob("*.h5.times.json")):
        if path not in kept:
            yield path, "times of no golden that is kept"
