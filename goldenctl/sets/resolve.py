"""From what a user calls a golden to the file: a path, or a set and its version."""

from __future__ import annotations

from pathlib import Path

from goldenctl.errors import UsageError
from goldenctl.sets.names import (
    GoldenSet,
    _known,
    existing_set,
    goldens_folder,
    newest_version,
    open_set,
    parse_reference,
)


def resolve(text: str, goldens: Path | None = None) -> Path:
    """Return the file that ``text`` names: a path, ``NAME@vN``, or ``NAME``.

    A file of that path comes first. ``NAME`` alone is the version that the manifest
    describes, without a manifest the newest. Raises MissingError when the set is known but the
    file is not here, UsageError for a name that is none; a path is returned as it is.
    """
    reference = parse_reference(text)
    if reference is None or Path(text).is_file():
        return Path(text)
    found = open_set(reference.name, goldens)
    if not found.folder.is_dir() and reference.version is None:
        if Path(text).is_dir():
            message = f"{text}: is a folder, expected a file"
            raise UsageError(message)
        folder = goldens_folder(goldens)
        message = f"{text}: there is no such file, and no such golden set in {folder}"
        raise UsageError(message, hint=_known(folder))
    found = existing_set(reference.name, goldens)
    return found.file(reference.version or current_version(found))


def current_version(golden_set: GoldenSet) -> int:
    """Return the version that the manifest describes, without a manifest the newest one.

    Raises MissingError when the set is empty, DamagedError when its manifest is damaged.
    """
    if golden_set.manifest_path.is_file():
        from goldenctl.sets.manifest import load_manifest

        return load_manifest(golden_set).version
    return newest_version(golden_set)
