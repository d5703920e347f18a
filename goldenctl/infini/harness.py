"""Owns the harness program of an install: built on first use, cached by all that went into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

import goldenctl
from goldenctl.errors import MissingError
from goldenctl.folders import harness_cache, require_ours, writable_harness_cache
from goldenctl.infini.build import Progress, Task, cmake_build, compiler, silent
from goldenctl.infini.find import Install, digest_files, install_command
from goldenctl.infini.place import log_beside, put, scratch_beside, sole_builder

PROGRAM = "goldenctl-harness"
SOURCES = Path(goldenctl.__file__).parent / "harness"
DEVICES_TIMEOUT_S = 120


@dataclass(frozen=True)
class Devices:
    """What ``goldenctl-harness --devices`` says of an install.

    ``counts`` is devices by type; ``quirks`` is by type and then by dtype, of the types that
    are there; ``rope`` the algorithms that its RoPE can be asked for.
    """

    program: str
    counts: dict[str, int]
    quirks: dict[str, dict[str, list[str]]]
    rope: list[str]


def build_harness(install: Install, *, sanitize: bool = False, progress: Progress = silent) -> Path:
    """Return the harness for ``install``, building it when no earlier one fits.

    ``sanitize`` adds AddressSanitizer and UndefinedBehaviorSanitizer. Safe against two
    processes at once. Raises MissingError with the compiler's first error, or where the cache
    cannot be written, or by others too.
    """
    folder = harness_cache() / cache_key(install, sanitize=sanitize)
    program = folder / PROGRAM
    if program.is_file():
        return require_ours(program)
    writable_harness_cache()
    with sole_builder(folder, progress):
        if not program.is_file():
            progress(f"building the harness for {install.root}")
            _build_into(folder, install, sanitize, progress)
    return require_ours(program)


def cache_key(install: Install, *, sanitize: bool = False) -> str:
    """Return 20 hex digits over sources, compiler, flags, headers and libraries."""
    parts = [
        goldenctl.__version__,
        digest_files(SOURCES, _sources()),
        *toolchain(),
        install.headers_digest,
        *(str(library) for library in install.libraries),
        "sanitize" if sanitize else "plain",
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def devices(install: Install, *, progress: Progress = silent) -> Devices:
    """Ask the harness which devices ``install`` sees; raises MissingError when it cannot say."""
    program = build_harness(install, progress=progress)
    try:
        done = subprocess.run(
            [program, "--devices"],
            capture_output=True,
            timeout=DEVICES_TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
            check=True,
        )
        return msgspec.json.decode(done.stdout, type=Devices)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"{program} --devices ended with status {error.returncode}: {last}"
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        message = f"{program} --devices gave no answer: {error}"
    raise MissingError(message, hint=f"check the InfiniCore install {install.root}")


def device_rows(install: Install, *, progress: Progress = silent) -> list[tuple[str, str]]:
    """Return ``(what, value)`` rows on the harness and devices of an install; see ``devices``."""
    found = devices(install, progress=progress)
    present = [f"{name} ({count})" for name, count in found.counts.items() if count > 0]
    quirks = [
        f"{device} {dtype}: {', '.join(names)}"
        for device, by_dtype in found.quirks.items()
        for dtype, names in by_dtype.items()
        if names
    ]
    return [
        ("harness", str(build_harness(install))),
        ("program", found.program),
        ("devices", ", ".join(present) or "none"),
        ("rope", ", ".join(found.rope)),
        ("quirks", "; ".join(quirks) or "none"),
    ]


def _sources() -> list[Path]:
    return sorted(p for p in SOURCES.iterdir() if p.suffix in {".cpp", ".h", ".txt"})


def toolchain() -> list[str]:
    """Return what of the compiler and its flags goes into a build; raises MissingError."""
    path = compiler()
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    flags = [os.environ.get(flags, "") for flags in ("CXXFLAGS", "CPPFLAGS", "LDFLAGS")]
    return [f"{path}\n{done.stdout}", *flags]


def remedy(install: Install) -> str:
    """Say what to do where a build against ``install`` fails."""
    if install.version is not None:  # it is one of ours
        return f"check $CXX and $CXXFLAGS, and the install by: {install_command(install.root)}"
    return (
        f"check the headers and libraries in {install.root}, $CXX and $CXXFLAGS, "
        "or take the CPU build: goldenctl infinicore install"
    )


def _build_into(folder: Path, install: Install, sanitize: bool, progress: Progress) -> None:
    defines = {
        "INFINI_ROOT": str(install.root),
        "GOLDENCTL_SANITIZE": "ON" if sanitize else "OFF",
        "GOLDENCTL_VERSION": goldenctl.__version__,
    }
    what = f"building the harness for {install.root}"
    with log_beside(folder) as log, scratch_beside(folder) as scratch:
        build, ready = scratch / "build", scratch / "ready"
        cmake_build(SOURCES, build, defines, Task(what, remedy(install), log, progress))
        ready.mkdir(mode=0o700)
        shutil.move(build / PROGRAM, ready / PROGRAM)
        (ready / PROGRAM).chmod(0o700)
        put(ready, folder)
