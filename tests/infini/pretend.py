"""Stand-ins: an install that has the right names, a source package that builds in a moment."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

HEADERS = ("infinicore.h", "infinirt.h", "infiniop/handle.h", "infiniop/ops/gemm.h")


def pretend_install(root: Path) -> Path:
    """Make files of the names that an install has."""
    for name in HEADERS:
        (root / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "include" / name).write_text(f"// {name}\n")
    (root / "lib").mkdir()
    for library in ("infinirt", "infiniop"):
        (root / "lib" / f"lib{library}.so").write_bytes(library.encode())
    return root


def small_sdist(archive: Path) -> Path:
    """Write a source package laid out as InfiniCore's is, with one function in each library."""
    files = {f"include/{name}": f"// {name}\n" for name in HEADERS}
    files |= {f"src/infini{of}/one.cc": f"int {of}() {{ return 1; }}\n" for of in ("rt", "op")}
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"infinicore/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return archive


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every name under ``folder`` with a file's bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
