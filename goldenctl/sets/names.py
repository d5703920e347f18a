"""Golden sets on disk: names to files, versions, the lock of a set.

``<goldens>/<name>/`` holds ``vN.h5``, ``manifest.json`` and, ignored by git, ``.lock``. A
version is never changed and its number never used again. Symbolic links that lead out of
the set are refused. HDF5's own locking can be switched off, so a set has a lock of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldenctl.errors import DamagedError, MissingError, UsageError

GOLDENS_ENVIRONMENT = "GOLDENS_DIR"
DEFAULT_GOLDENS = Path("goldens")
MANIFEST = "manifest.json"
LOCK = ".lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(rf"({_NAME.pattern})(?:@v([1-9][0-9]{{0,5}}))?")
_VERSION = re.compile(r"v([1-9][0-9]{0,5})\.h5")
_LFS_POINTER = b"version https://git-lfs"
_FILE_SUFFIXES = (".h5", ".hdf5", ".json")
_LISTED = 8


@dataclass(frozen=True)
class Reference:
    """``NAME`` or ``NAME@vN`` as a user writes it."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@v{self.version}"


@dataclass(frozen=True)
class GoldenSet:
    """One set: a folder of versions and their manifest. ``folder`` need not exist yet."""

    name: str
    folder: Path

    @property
    def manifest_path(self) -> Path:
        return self.folder / MANIFEST

    def path(self, version: int) -> Path:
        """Where a version is, or would be."""
        return self.folder / f"v{version}.h5"

    def versions(self) -> list[int]:
        """The versions whose file is here, oldest first."""
        if not self.folder.is_dir():
            return []
        found = (_VERSION.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def file(self, version: int) -> Path:
        """Return a version's file. Raises MissingError, naming what is here, when it is not,
        or only git-lfs's pointer, and DamagedError when it is a link that leads out."""
        path = self.path(version)
        if not path.is_file():
            here = ", ".join(f"v{number}" for number in self.versions()) or "none"
            message = f"{self.name}@v{version}: {path} is not here (here: {here})"
            raise MissingError(
                message,
                hint=f"goldenctl pull {self.name}, or goldenctl record --from-manifest {self.name}",
            )
        refuse_leading_out(path, self.folder)
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                message = f"{path}: git-lfs has left only a pointer to it here"
                raise MissingError(message, hint="git lfs pull brings the golden")
        return path


def goldens_folder(goldens: Path | None = None) -> Path:
    """Return the folder of all sets: the one given, else $GOLDENS_DIR, else ``goldens``."""
    return goldens or Path(os.environ.get(GOLDENS_ENVIRONMENT) or DEFAULT_GOLDENS)


def parse_reference(text: str) -> Reference | None:
    """Return ``NAME`` or ``NAME@vN`` parsed; None when ``text`` can only be a path."""
    match = _REFERENCE.fullmatch(text)
    if match is None or match[1].endswith(_FILE_SUFFIXES):
        return None
    return Reference(match[1], int(match[2]) if match[2] else None)


def require_name(text: str) -> str:
    """Return a set's name; UsageError when ``text`` cannot be one."""
    reference = parse_reference(text)
    if reference is None or reference.version is not None:
        message = f"name {text!r}: expected up to 64 letters, digits, '.', '_' and '-'"
        raise UsageError(message, hint="such as qwen3-tiny; versions are numbered by themselves")
    return text


def open_set(name: str, goldens: Path | None = None) -> GoldenSet:
    """Return the set ``name``, whether or not it is there yet; its name is checked.

    Raises UsageError for a name that cannot be one, DamagedError when the set's folder is a
    link that leads out of the folder of sets.
    """
    folder = goldens_folder(goldens)
    found = GoldenSet(require_name(name), folder / name)
    if found.folder.is_symlink():
        refuse_leading_out(found.folder, folder)
    return found


def existing_set(name: str, goldens: Path | None = None) -> GoldenSet:
    """Return the set ``name``; UsageError, naming those that are there, when it is not."""
    found = open_set(name, goldens)
    if not found.folder.is_dir():
        folder = goldens_folder(goldens)
        message = f"{name}: there is no golden set of that name in {folder} ({_known(folder)})"
        raise UsageError(message, hint="goldenctl record CHECKPOINT --name NAME makes one")
    return found


def named_set(text: str, goldens: Path | None = None) -> tuple[GoldenSet, int | None]:
    """Return the set and the version that ``NAME`` or ``NAME@vN`` name; UsageError for others."""
    reference = parse_reference(text)
    if reference is None:
        message = f"{text}: expected NAME or NAME@vN, the name of a golden set"
        raise UsageError(message, hint="goldenctl list shows them")
    return existing_set(reference.name, goldens), reference.version


def list_sets(goldens: Path | None = None) -> list[GoldenSet]:
    """Return every set by name: a folder with a manifest or a version in it."""
    folder = goldens_folder(goldens)
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = [GoldenSet(name, folder / name) for name in names if _NAME.fullmatch(name)]
    return [each for each in found if each.manifest_path.is_file() or each.versions()]


def newest_version(golden_set: GoldenSet) -> int:
    """Return the newest version that is here; MissingError when there is none."""
    versions = golden_set.versions()
    if not versions:
        message = f"{golden_set.folder}: there is no version in it"
        hint = f"goldenctl pull {golden_set.name}, or record --from-manifest {golden_set.name}"
        raise MissingError(message, hint=hint)
    return versions[-1]


@contextlib.contextmanager
def locked(golden_set: GoldenSet) -> Iterator[None]:
    """Hold the set for writing; its folder is made when it is not there.

    The lock goes with the process, however that ends. Raises UsageError at once, naming the
    other process, when another one holds it.
    """
    try:
        golden_set.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(golden_set.folder / LOCK, flags, 0o666)
    except OSError as error:
        message = f"{golden_set.folder}: cannot be written: {error.strerror}"
        raise UsageError(message, hint="nothing was changed") from error
    try:
        _lock(descriptor, golden_set)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, golden_set: GoldenSet) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        message = f"{golden_set.name}: another goldenctl (process {holder}) is writing this set"
        raise UsageError(message, hint="nothing was changed; wait for it to end") from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def refuse_leading_out(path: Path, folder: Path) -> None:
    """Raise DamagedError when ``path``, links followed, is not in ``folder``."""
    if not path.resolve().is_relative_to(folder.resolve()):
        message = f"{path}: is a link that leads out of {folder}"
        raise DamagedError(message, hint="put the file itself there")


def _known(folder: Path) -> str:
    names = [found.name for found in list_sets(folder)]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"there are {', '.join(names[:_LISTED])}{more}" if names else "there are none"
