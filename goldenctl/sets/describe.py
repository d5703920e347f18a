"""What a manifest says of a golden: its entries, sketches, recipe and digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from goldenctl.diff.sketches import sketches_of
from goldenctl.digests import BLAKE3, algorithm_of, of_file
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.records.policy import Policy
from goldenctl.sets.environment import full_recipe
from goldenctl.sets.manifest import Manifest, Tensor, VersionEntry
from goldenctl.sets.names import GoldenSet

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Description:
    """What is said around a golden: its set, number, history, policy, and what it changed."""

    golden_set: GoldenSet
    version: int
    tolerance: Policy
    history: Sequence[VersionEntry] = ()
    note: str = ""
    progress: Progress = field(default=lambda *_: None)


def describe(description: Description) -> Manifest:
    """Return the manifest of a version, read from its file.

    Raises MissingError when the file is not here, DamagedError when it is not a golden whose
    recipe can be kept.
    """
    golden_set, version = description.golden_set, description.version
    golden = open_golden(golden_set.file(version), kind="golden")
    earlier = {each.version: each for each in description.history}
    known = earlier.get(version)
    algorithm = algorithm_of(known.digest) if known is not None else BLAKE3
    entry = version_entry(golden, version, description.note, algorithm)
    if known is not None:  # what its files do not tell any more
        entry = msgspec.structs.replace(
            entry,
            created_utc=entry.created_utc or known.created_utc,
            note=entry.note or known.note,
        )
    return Manifest(
        name=golden_set.name,
        version=version,
        versions=tuple(each for _, each in sorted({**earlier, version: entry}.items())),
        recipe=full_recipe(golden),
        tolerance=description.tolerance,
        tensors=tensor_entries(golden, description.progress),
    )


def version_entry(
    golden: GoldenFile, version: int, note: str = "", algorithm: str = BLAKE3
) -> VersionEntry:
    """Return a version's line of the history; hashes the whole file."""
    return VersionEntry(
        version=version,
        bytes=golden.path.stat().st_size,
        digest=of_file(golden.path, algorithm),
        content_digest=golden.content_digest,
        created_utc=golden.created_utc,
        tool_version=golden.tool_version,
        note=note,
    )


def tensor_entries(golden: GoldenFile, progress: Progress = lambda *_: None) -> tuple[Tensor, ...]:
    """Return an entry with digest and sketch for every tensor, in execution order."""
    sketches = {}
    for number, (name, sketch) in enumerate(sketches_of(golden), start=1):
        sketches[name] = sketch
        progress(number, len(golden.tensors), name)
    return tuple(
        Tensor(
            name=info.name,
            dtype=info.dtype,
            shape=info.shape,
            dims=info.dims,
            role=info.role,
            op=info.op,
            digest=info.digest,
            sketch=sketches.get(info.name),
        )
        for info in golden.tensors.values()
    )
