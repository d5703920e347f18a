"""The harness program of an install: built on first use, cached by all that went into it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

import goldenctl
from goldenctl.errors import MissingError
from goldenctl.infini.build import Progress, silent
from goldenctl.infini.find import Install
from goldenctl.infini.product import Product, built, key_of

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

    ``sanitize`` adds AddressSanitizer and UndefinedBehaviorSanitizer. Raises MissingError as
    ``product.built`` does.
    """
    defines = {
        "INFINI_ROOT": str(install.root),
        "GOLDENCTL_SANITIZE": "ON" if sanitize else "OFF",
        "GOLDENCTL_VERSION": goldenctl.__version__,
    }
    folder = cache_key(install, sanitize=sanitize)
    harness = Product(PROGRAM, "harness", SOURCES, folder, lambda _: defines)
    return built(harness, install, progress=progress)


def cache_key(install: Install, *, sanitize: bool = False) -> str:
    """Return 20 hex digits over sources, compiler, flags, headers and libraries."""
    libraries = [str(library) for library in install.libraries]
    kind = "sanitize" if sanitize else "plain"
    return key_of(SOURCES, [install.headers_digest, *libraries, kind])


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
