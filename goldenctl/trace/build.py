"""The library that is preloaded into programs: built on first use for an install, then cached."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import goldenctl
from goldenctl.folders import harness_cache, require_ours, writable_harness_cache
from goldenctl.infini.build import Progress, Task, cmake_build, silent
from goldenctl.infini.find import Install, digest_files
from goldenctl.infini.harness import remedy, toolchain
from goldenctl.infini.place import log_beside, put, scratch_beside, sole_builder
from goldenctl.trace.generate import source
from goldenctl.trace.headers import read_headers

LIBRARY = "libgoldenctl-trace.so"
SOURCES = Path(goldenctl.__file__).parent / "shim"


def build_shim(install: Install, *, progress: Progress = silent) -> Path:
    """Return the library for ``install``, building it when no earlier one fits.

    Safe against two processes at once. Raises MissingError with the compiler's first error,
    or where the cache cannot be written.
    """
    generated = source(read_headers(install.include))
    folder = harness_cache() / f"trace-{_key(generated)}"
    library = folder / LIBRARY
    if library.is_file():
        return require_ours(library)
    writable_harness_cache()
    with sole_builder(folder, progress):
        if not library.is_file():
            progress(f"building the trace library for {install.root}")
            _build_into(folder, install, generated, progress)
    return require_ours(library)


def _key(generated: str) -> str:
    """Return 20 hex digits over sources, headers as far as they count, compiler and flags."""
    sources = sorted(p for p in SOURCES.iterdir() if p.suffix in {".cpp", ".h", ".txt"})
    parts = [goldenctl.__version__, digest_files(SOURCES, sources), generated, *toolchain()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _build_into(folder: Path, install: Install, generated: str, progress: Progress) -> None:
    what = f"building the trace library for {install.root}"
    with log_beside(folder) as log, scratch_beside(folder) as scratch:
        build, ready = scratch / "build", scratch / "ready"
        written = scratch / "generated.cpp"
        written.write_text(generated)
        defines = {"GOLDENCTL_GENERATED": str(written)}
        cmake_build(SOURCES, build, defines, Task(what, remedy(install), log, progress))
        ready.mkdir()
        shutil.move(build / LIBRARY, ready / LIBRARY)
        put(ready, folder)
