"""Measures how the time of writing and reading a golden grows with the number of its tensors.

    python benchmarks/many_tensors.py [--few 5000] [--many 100000] [--folder DIR]

Tensors are tiny, so that what is said of them is all there is to write. Processor time is
counted, that of the process in which HDF5 reads included: the wall clock of a busy machine says
little. Fails where either grows faster than the number of tensors does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from goldenctl.golden.file import open_golden
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.writer import GoldenWriter

TAPS, LAYERS = 20, 50  # of a group, of a step


def tensors(count: int) -> list[TensorSpec]:
    """Return tensors as a golden of many decode steps has them."""

    def name(number: int) -> str:
        layer, tap = divmod(number, TAPS)
        step, layer = divmod(layer, LAYERS)
        return f"cases/default/steps/{step:02d}/layers/{layer:02d}/attention/tap_{tap}"

    dims = ("batch", "token")
    return [TensorSpec(name(n), "float32", (1, 4), dims, "tap", "linear") for n in range(count)]


def measure(path: Path, count: int) -> tuple[float, float]:
    """Return the seconds of processor time of writing so many tensors, and of reading them."""
    specs = tensors(count)
    groups = list(dict.fromkeys(spec.name.rpartition("/")[0] for spec in specs))
    start = _seconds()
    with GoldenWriter(
        path, kind="golden", recipe={}, tensors=specs, links={}, groups=groups
    ) as writer:
        writer.seal()
    written = _seconds()
    assert len(open_golden(path).tensors) == count
    return written - start, _seconds() - written


def _seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        few = measure(Path(folder) / "few.h5", options.few)
        many = measure(Path(folder) / "many.h5", options.many)
    bar, ok = options.many / options.few, True
    for what, less, more in zip(("write", "read"), few, many, strict=True):
        ok &= more / less <= bar
        sys.stdout.write(
            f"{what}: {options.few:,} tensors {less:.2f} s, {options.many:,} {more:.2f} s, "
            f"{more / less:.1f} times (bar: {bar:.1f})\n"
        )
    return not ok


if __name__ == "__main__":
    sys.exit(main())
