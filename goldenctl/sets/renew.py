"""A set's change of version: a new version against what the manifest describes, and the
manifest renewed. Whoever calls holds the set's lock (``names.locked``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from goldenctl.atomic import write_whole
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.digests import algorithm_of, of_file
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.times import times_path
from goldenctl.records.policy import Policy
from goldenctl.sets.against_manifest import compare_with_manifest, described
from goldenctl.sets.describe import Description, describe
from goldenctl.sets.environment import differences, full_recipe
from goldenctl.sets.manifest import Manifest, dump_manifest, ignorable, load_manifest
from goldenctl.sets.measure import ByBytes, ByManifest
from goldenctl.sets.names import GoldenSet
from goldenctl.sets.triage import Measure, Triage, triage

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Renewal:
    """A manifest that could be written, and what it changes; ``triage`` is None when the set
    had none, or when it described the same version."""

    golden_set: GoldenSet
    manifest: Manifest
    before: Manifest | None
    triage: Triage | None

    @property
    def path(self) -> Path:
        return self.golden_set.manifest_path

    def changes(self) -> list[str]:
        """What the manifest says otherwise than before, one line each; empty when nothing."""
        old, new = self.before, self.manifest
        if old is None or msgspec.structs.replace(old, digest="") == new:
            return []
        said = [] if old.version == new.version else [f"version v{old.version} → v{new.version}"]
        if old.tolerance != new.tolerance:
            said.append(f"tolerance {old.tolerance.name} → {new.tolerance.name}")
        changed = sum(old.by_name.get(t.name) != t for t in new.tensors)
        changed += len(old.by_name.keys() - new.by_name.keys())
        if changed:
            said.append(f"{changed} entries of tensors")
        said += [f"recipe: {line}" for line in differences(old.recipe, new.recipe)]
        return said or ["the history"]

    def write(self) -> None:
        """Write the manifest; the ``x-`` keys of the one before are kept."""
        kept = ignorable(self.path.read_bytes(), str(self.path)) if self.before else {}
        write_whole(self.path, dump_manifest(self.manifest, kept))


def manifest_or_none(golden_set: GoldenSet) -> Manifest | None:
    """Return a set's manifest; None when it has none. Raises DamagedError for a damaged one."""
    return load_manifest(golden_set) if golden_set.manifest_path.exists() else None


def next_version(golden_set: GoldenSet, manifest: Manifest | None) -> int:
    """Return the number after every version that is here or in the manifest's history."""
    known = [entry.version for entry in manifest.versions] if manifest else []
    return max([*golden_set.versions(), *known], default=0) + 1


def restore(golden_set: GoldenSet, manifest: Manifest, version: int) -> int:
    """Give a new file the number that the manifest describes, when that version is not here and
    the bytes are the same; return the number that the file has then."""
    current = golden_set.path(manifest.version)
    new = golden_set.path(version)
    known = manifest.current.digest
    if current.exists() or of_file(new, algorithm_of(known)) != known:
        return version
    new.rename(current)
    if times_path(new).exists():
        times_path(new).rename(times_path(current))
    return manifest.version


def compare_versions(
    golden_set: GoldenSet,
    manifest: Manifest,
    version: int,
    *,
    progress: Progress = lambda *_: None,
) -> Triage:
    """Sort every tensor of a version against the one that the manifest describes: by its file
    when that is here, else by digests and sketches.

    Raises DamagedError when a file is damaged or is not what the manifest describes.
    """
    new = open_golden(golden_set.file(version), kind="golden")
    policy = manifest.tolerance
    label = f"{golden_set.name}@v{manifest.version}"
    if golden_set.path(manifest.version).exists():
        old = described_file(golden_set, manifest)
        report = compare(old, new, policy, mode="chain", progress=progress)
        measure: Measure = ByBytes(old, new)
    else:
        old = described(manifest, golden_set.manifest_path)
        report = compare_with_manifest(
            manifest, golden_set.manifest_path, new, policy, mode="chain"
        )
        measure = ByManifest(manifest, new)
        label += " (by its manifest: the file is not here)"
    tools = manifest.current.tool_version, new.tool_version
    return triage(
        old,
        new,
        report,
        labels=(label, f"{golden_set.name}@v{version}"),
        differs=tuple(differences(manifest.recipe, full_recipe(new), tools)),
        measure=measure,
    )


def described_file(golden_set: GoldenSet, manifest: Manifest) -> GoldenFile:
    """Open the version that the manifest describes; DamagedError when it is another content."""
    golden = open_golden(golden_set.file(manifest.version), kind="golden")
    expected = manifest.current.content_digest
    if golden.content_digest != expected:
        message = f"{golden.path}: is not the version that {golden_set.manifest_path} describes"
        hint = f"remove it and run goldenctl pull {golden_set.name}, or record it again"
        raise DamagedError(message, hint=hint)
    return golden


def renewal(
    golden_set: GoldenSet,
    version: int,
    *,
    tolerance: Policy | None = None,
    note: str = "",
    progress: Progress = lambda *_: None,
) -> Renewal:
    """Return the manifest that describes ``version``; nothing is written.

    The tolerance in force stays, unless another is given. Raises DamagedError when the
    manifest is damaged, or when a version is not what it was when it was described.
    """
    before = manifest_or_none(golden_set)
    sorted_out = None
    if before is not None and before.version == version:
        described_file(golden_set, before)
    elif before is not None:
        sorted_out = compare_versions(golden_set, before, version, progress=progress)
    policy = tolerance or (before.tolerance if before else default_policy())
    history = before.versions if before else ()
    if before is not None and sorted_out is not None:
        note = note or f"against v{before.version}: {sorted_out.summary}"
    description = Description(golden_set, version, policy, history, note, progress)
    return Renewal(golden_set, describe(description), before, sorted_out)
