"""Owns where InfiniCore is looked for, and what makes an install usable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from goldenctl.errors import MissingError
from goldenctl.infini.paths import provisioned_prefix

INSTALL_HINT = (
    "point --infini-root or $INFINI_ROOT at an InfiniCore install, "
    "or build the CPU one: goldenctl infinicore install"
)
LIBRARIES = ("infinirt", "infiniop")
STAMP = "goldenctl-install.json"

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


def find_install(root: Path | None = None) -> Install:
    """Return the first InfiniCore of: ``root``, ``$INFINI_ROOT``, ``~/.infini``, our own.

    A root that the user named is taken or refused, never passed over. Raises MissingError.
    """
    named: list[tuple[Path, Source]] = []
    if root is not None:
        named.append((root, "option"))
    elif environment := os.environ.get("INFINI_ROOT"):
        named.append((Path(environment), "environment"))
    for candidate, source in named:
        if lack := what_it_lacks(candidate):
            origin = "--infini-root" if source == "option" else "$INFINI_ROOT"
            message = f"{origin} {candidate} is not an InfiniCore install: it lacks {lack}"
            raise MissingError(message, hint=INSTALL_HINT)
        return _install(candidate, source)
    home = Path.home() / ".infini"
    if not what_it_lacks(home):
        return _install(home, "home")
    own = provisioned_prefix()
    if not what_it_lacks(own) and (own / STAMP).is_file():
        return _install(own, "provisioned")
    message = f"InfiniCore was not found: neither {home} nor {own} is a whole install"
    raise MissingError(message, hint=INSTALL_HINT)


def what_it_lacks(root: Path) -> str:
    """Return the first file that keeps ``root`` from being an install, or an empty string."""
    for header in ("infinicore.h", "infinirt.h", "infiniop/handle.h", "infiniop/ops/gemm.h"):
        if not (root / "include" / header).is_file():
            return f"include/{header}"
    for library in LIBRARIES:
        if not (root / "lib" / f"lib{library}.so").is_file():
            return f"lib/lib{library}.so"
    return ""


def digest_file(path: Path) -> str:
    """Return ``sha256:hex`` of the bytes of ``path``."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_files(base: Path, files: Iterable[Path]) -> str:
    """Return one digest of the names relative to ``base`` and the bytes of ``files``."""
    lines = (f"{path.relative_to(base).as_posix()} {digest_file(path)}\n" for path in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _install(root: Path, source: Source) -> Install:
    root = root.expanduser().absolute()
    libraries = tuple(root / "lib" / f"lib{name}.so" for name in LIBRARIES)
    return Install(root, source, root / "include", libraries, _version(root / STAMP))


def _version(stamp: Path) -> str | None:
    # InfiniCore's headers name no version; only an install of ours knows.
    try:
        version: object = json.loads(stamp.read_text(encoding="utf-8")).get("version")
    except (OSError, ValueError, AttributeError):
        return None
    return version if isinstance(version, str) else None
