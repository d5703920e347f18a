"""What the tests of push and pull have in hand: sets of any bytes, and a bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from goldenctl.diff.tolerance import default_policy
from goldenctl.digests import of_bytes
from goldenctl.golden.recipe import Recipe
from goldenctl.sets.manifest import Manifest, VersionEntry, dump_manifest, load_manifest
from goldenctl.sets.names import GoldenSet

Called = Callable[..., tuple[int, str, str]]
MadeSet = Callable[..., GoldenSet]


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for one test, seen past goldenctl."""

    url: str
    files: object

    def keys(self) -> list[str]:
        return sorted(self.files.find(self.url))  # type: ignore[attr-defined]


def content(version: int, size: int) -> bytes:
    """Return bytes of which no two parts are the same."""
    return np.random.default_rng(version).bytes(size)


def entry_of(version: int, data: bytes) -> VersionEntry:
    digest = of_bytes(data)
    return VersionEntry(version=version, bytes=len(data), digest=digest, content_digest=digest)


def manifest_of(name: str, version: int, entries: list[VersionEntry]) -> bytes:
    return dump_manifest(
        Manifest(
            name=name,
            version=version,
            versions=tuple(entries),
            recipe=Recipe(),
            tolerance=default_policy(),
            tensors=(),
        )
    )


def digest_of(made: GoldenSet, version: int = 1) -> str:
    entry = next(e for e in load_manifest(made).versions if e.version == version)
    return entry.digest
