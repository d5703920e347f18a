"""The library that is preloaded into programs: generated from an install's headers, then built."""

from __future__ import annotations

from pathlib import Path

import goldenctl
from goldenctl.infini.build import Progress, silent
from goldenctl.infini.find import Install
from goldenctl.infini.product import Product, built, key_of
from goldenctl.trace.generate import source
from goldenctl.trace.headers import read_headers

LIBRARY = "libgoldenctl-trace.so"
SOURCES = Path(goldenctl.__file__).parent / "shim"


def build_shim(install: Install, *, progress: Progress = silent) -> Path:
    """Return the library for ``install``, building it when no earlier one fits.

    Raises MissingError as ``product.built`` does.
    """
    generated = source(read_headers(install.include))

    def defines(scratch: Path) -> dict[str, str]:
        written = scratch / "generated.cpp"
        written.write_text(generated)
        return {"GOLDENCTL_GENERATED": str(written)}

    folder = f"trace-{key_of(SOURCES, [generated])}"
    library = Product(LIBRARY, "trace library", SOURCES, folder, defines)
    return built(library, install, progress=progress)
