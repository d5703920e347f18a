"""What is built against an install on first use and run from the cache: harness, trace library."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import goldenctl
from goldenctl.digests import SHA256, hex_of, of_text
from goldenctl.folders import harness_cache, require_ours, writable_harness_cache
from goldenctl.infini.build import Progress, Task, cmake_build, compiler, silent
from goldenctl.infini.find import Install, digest_files, install_command
from goldenctl.infini.place import log_beside, put, scratch_beside, sole_builder


@dataclass(frozen=True)
class Product:
    """A file that CMake makes of ``sources``.

    ``title`` is what a user calls it, ``folder`` its place in the cache. ``defines`` returns
    CMake's variables; it may write what they name into the scratch folder that it is given.
    """

    name: str
    title: str
    sources: Path
    folder: str
    defines: Callable[[Path], Mapping[str, str]]


def built(product: Product, install: Install, *, progress: Progress = silent) -> Path:
    """Return the product for ``install``, building it when no earlier one fits.

    Safe against two processes at once. Raises MissingError with the compiler's first error, or
    where the cache cannot be written, or by others too.
    """
    folder = harness_cache() / product.folder
    path = folder / product.name
    if path.is_file():
        return require_ours(path)
    writable_harness_cache()
    with sole_builder(folder, progress):
        if not path.is_file():
            progress(f"building the {product.title} for {install.root}")
            _build_into(folder, product, install, progress)
    return require_ours(path)


def key_of(sources: Path, parts: Sequence[str]) -> str:
    """Return 20 hex digits over sources, compiler, flags and what else goes into a build.

    Raises MissingError where there is no compiler.
    """
    path = compiler()
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    flags = [os.environ.get(flags, "") for flags in ("CXXFLAGS", "CPPFLAGS", "LDFLAGS")]
    files = sorted(p for p in sources.iterdir() if p.suffix in {".cpp", ".h", ".txt"})
    digest = digest_files(sources, files)
    all_parts = [goldenctl.__version__, digest, f"{path}\n{version.stdout}", *flags, *parts]
    return hex_of(of_text("\0".join(all_parts), SHA256))[:20]


def _build_into(folder: Path, product: Product, install: Install, progress: Progress) -> None:
    what = f"building the {product.title} for {install.root}"
    with log_beside(folder) as log, scratch_beside(folder) as scratch:
        build, ready = scratch / "build", scratch / "ready"
        task = Task(what, _remedy(install), log, progress)
        cmake_build(product.sources, build, dict(product.defines(scratch)), task)
        ready.mkdir(mode=0o700)
        shutil.move(build / product.name, ready / product.name)
        (ready / product.name).chmod(0o700)
        put(ready, folder)


def _remedy(install: Install) -> str:
    if install.version is not None:  # it is one of ours
        return f"check $CXX and $CXXFLAGS, and the install by: {install_command(install.root)}"
    return (
        f"check the headers and libraries in {install.root}, $CXX and $CXXFLAGS, "
        "or take the CPU build: goldenctl infinicore install"
    )
