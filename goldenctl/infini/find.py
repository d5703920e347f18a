"""Where InfiniCore is looked for, and what makes an install usable."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from goldenctl.digests import SHA256, of_text
from goldenctl.errors import MissingError
from goldenctl.folders import home_install, provisioned_prefix
from goldenctl.infini.stamp import STAMP, damage, digest_file, read_stamp

INSTALL_HINT = (
    "point --infini-root or $INFINI_ROOT at an InfiniCore install, "
    "or build the CPU one: goldenctl infinicore install"
)
LIBRARIES = ("infinirt", "infiniop")
REQUIRED = (
    "include/infinicore.h",
    "include/infinirt.h",
    "include/infiniop/handle.h",
    "include/infiniop/ops/gemm.h",
    *(f"lib/lib{name}.so" for name in LIBRARIES),
)

Source = Literal["option", "environment", "home", "provisioned"]


@dataclass(frozen=True)
class Install:
    """One usable InfiniCore: headers, and the two libraries of its C API.

    The digests are ``sha256:hex`` and read the files when first asked for.
    """

    root: Path
    source: Source
    include: Path
    libraries: tuple[Path, ...]
    version: str | None

    @cached_property
    def headers_digest(self) -> str:
        """Digest of every C header's relative name and bytes, in order of name."""
        return digest_files(self.include, sorted(self.include.rglob("*.h")))

    @cached_property
    def library_digests(self) -> dict[str, str]:
        """Digest of each library by file name."""
        return {path.name: digest_file(path) for path in self.libraries}

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Rows of ``(what, value)`` that tell all that is known without a compiler."""
        return [
            ("root", str(self.root)),
            ("found by", self.source),
            ("version", self.version or "not stated"),
            ("headers", self.headers_digest),
            *self.library_digests.items(),
        ]


def find_install(root: Path | None = None) -> Install:
    """Return the first InfiniCore of: ``root``, ``$INFINI_ROOT``, ``~/.infini``, our own.

    A root that the user named is taken or refused, never passed over. Raises MissingError.
    """
    if root is not None:
        return _named(root, "option", "--infini-root")
    if environment := os.environ.get("INFINI_ROOT"):
        return _named(Path(environment), "environment", "$INFINI_ROOT")
    home = home_install()
    of_home = "there is no home folder" if home is None else what_is_wrong(home)
    if home is not None and not of_home:
        return _install(home, "home")
    own = provisioned_prefix()
    of_own = what_is_wrong(own)
    if not of_own and not (own / STAMP).is_file():
        of_own = f"it lacks {STAMP}"
    if not of_own:
        return _install(own, "provisioned")
    states = [of_home if home is None else _state(home, of_home), _state(own, of_own)]
    message = f"InfiniCore was not found: {', and '.join(states)}"
    raise MissingError(message, hint=INSTALL_HINT)


def what_is_wrong(root: Path, *, digests: bool = False) -> str:
    """Return the first thing that keeps ``root`` from being an install, or an empty string.

    Of an install that goldenctl made, every file must have the size that was installed, and
    the bytes too with ``digests``.
    """
    for name in REQUIRED:
        path = root / name
        if not path.is_file():
            return f"it lacks {name}"
        if path.stat().st_size == 0:
            return f"its {name} is empty"
    return damage(root, digests=digests)


def install_command(root: Path) -> str:
    """Return the command that mends an install of ours in ``root``."""
    prefix = "" if root == provisioned_prefix() else f" --prefix {shlex.quote(str(root))}"
    return f"goldenctl infinicore install{prefix}"


def digest_files(base: Path, files: Iterable[Path]) -> str:
    """Return one digest of the names relative to ``base`` and the bytes of ``files``."""
    lines = (f"{path.relative_to(base).as_posix()} {digest_file(path)}\n" for path in files)
    return of_text("".join(lines), SHA256)


def _named(root: Path, source: Source, origin: str) -> Install:
    if not (wrong := what_is_wrong(root)):
        return _install(root, source)
    hint = INSTALL_HINT
    if (root / STAMP).is_file():
        hint = f"build it again: {install_command(root)}"
    message = f"{origin} {root} is not an InfiniCore install: {wrong}"
    raise MissingError(message, hint=hint)


def _install(root: Path, source: Source) -> Install:
    root = root.expanduser().absolute()
    libraries = tuple(root / "lib" / f"lib{name}.so" for name in LIBRARIES)
    stamp = read_stamp(root)  # InfiniCore's headers name no version; only an install of ours knows
    return Install(root, source, root / "include", libraries, stamp.version if stamp else None)


def _state(root: Path, wrong: str) -> str:
    return f"{root} is incomplete: {wrong}" if root.exists() else f"{root} is not there"
