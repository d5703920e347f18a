"""Flips one bit of a golden at a time and counts what ``open_golden`` makes of it.

A flip is ``unused`` when the file is read just as before: the byte belongs to no metadata
that is read, or to a tensor, whose digest is compared when the tensor is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from goldenctl.errors import DamagedError
from goldenctl.golden.file import open_golden


def main(path: Path, flips: int) -> None:
    expected, whole = open_golden(path), path.read_bytes()
    counts = {"refused": 0, "unused": 0, "silent": 0}
    for bit in np.random.Generator(np.random.PCG64(0)).integers(0, len(whole) * 8, flips):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        try:
            same = open_golden(path) == expected
        except DamagedError:
            counts["refused"] += 1
        else:
            counts["unused" if same else "silent"] += 1
    sys.stdout.write("".join(f"{name} {count}\n" for name, count in counts.items()))


main(Path(sys.argv[1]), int(sys.argv[2]))
