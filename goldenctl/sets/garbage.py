"""Owns what of a golden set nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from goldenctl.golden.store import GoldenSet, leftovers
from goldenctl.golden.times import times_path
from goldenctl.sets.renew import manifest_or_none


def garbage(golden_set: GoldenSet) -> Iterator[tuple[Path, str]]:
    """Yield each file of a set that can go, and why.

    Raises DamagedError when the manifest is damaged: it cannot say what it needs.
    """
    manifest = manifest_or_none(golden_set)
    for path in leftovers(golden_set.folder):
        yield path, "left by a process that ended"
    for path in sorted(golden_set.folder.glob(".*.pull.part")):
        yield path, "left by an interrupted pull, which would go on from it"
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
