"""The stamp of an install that goldenctl made: the size and digest of each of its files.

The stamp is written last. Without it an install is the user's own, of which nothing is known;
with it every file must be as it was installed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from goldenctl.digests import SHA256, of_file

STAMP = "goldenctl-install.json"


class StampedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One installed file; ``digest`` is ``sha256:hex``."""

    bytes: int
    digest: str


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was installed: a version, from the source package ``sdist``, and its files by name."""

    version: str
    sdist: str
    files: dict[str, StampedFile]


def write_stamp(root: Path, *, version: str, sdist: str) -> None:
    """Stamp the install in ``root``: all files that it holds now are what it must hold."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != STAMP)
    files = {
        path.relative_to(root).as_posix(): StampedFile(path.stat().st_size, digest_file(path))
        for path in paths
    }
    content = msgspec.json.encode(Stamp(version, sdist, files))
    (root / STAMP).write_bytes(msgspec.json.format(content) + b"\n")


def read_stamp(root: Path) -> Stamp | None:
    """Return the stamp of ``root``; None where there is none that this goldenctl can read."""
    try:
        return msgspec.json.decode((root / STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def damage(root: Path, *, digests: bool = False) -> str:
    """Return the first thing of ``root`` that is not as its stamp says, or an empty string.

    Sizes are compared, and the bytes too with ``digests``. Without a stamp nothing is known.
    """
    if not (root / STAMP).is_file():
        return ""
    stamp = read_stamp(root)
    if stamp is None:
        return f"its {STAMP} is damaged, or another version of goldenctl wrote it"
    for name, expected in stamp.files.items():
        path = root / name
        if not path.is_file():
            return f"it lacks {name}"
        if (size := path.stat().st_size) != expected.bytes:
            return f"its {name} has {size} bytes, expected {expected.bytes} by {STAMP}"
        if digests and digest_file(path) != expected.digest:
            return f"its {name} has other bytes than were installed"
    return ""


def digest_file(path: Path) -> str:
    """Return the digest of a file as a package index states it: SHA-256."""
    return of_file(path, SHA256)
