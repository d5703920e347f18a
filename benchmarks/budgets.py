"""Compares the budgets of two goldens of the same model and inputs, such as of two builds.

    python benchmarks/budgets.py OLD.h5 NEW.h5 [--within 0.1]

For every scope, statistic and op it shows the median over all rows of new over old, and how far
nine rows in ten are spread. Floors are drawn at random, so that two builds agree in the median,
not row by row. Exits with 1 where the recorded tensors differ, a median is further off than
``--within``, or a floor is below the op's own.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import BUDGET_SCOPES, BUDGET_STATISTICS

OWN = BUDGET_SCOPES.index("op")
FLOORS = [BUDGET_STATISTICS.index(name) for name in ("floor_l2", "floor_max")]


def ratios(old: GoldenFile, new: GoldenFile) -> dict[tuple[str, str, str], list[np.ndarray]]:
    """Return new over old of every row whose budgets are finite, by scope, op and statistic."""
    found: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    for info in old.tensors.values():
        if info.role != "budget":
            continue
        before, after = (np.asarray(file.verify(info.name), "f8") for file in (old, new))
        scopes = BUDGET_SCOPES if len(before) == len(BUDGET_SCOPES) else ("fused",)
        for scope, *rows in zip(scopes, before, after, strict=True):
            for at, statistic in enumerate(BUDGET_STATISTICS):
                a, b = (row[..., at].ravel() for row in rows)
                fine = np.isfinite(a) & np.isfinite(b) & (a > 0)
                found[scope, info.op, statistic].append(b[fine] / a[fine])
    return found


def below_own(golden: GoldenFile) -> list[str]:
    """Return the budgets with a floor below that of scope op."""
    names = []
    for info in golden.tensors.values():
        if info.role == "budget":
            floors = np.asarray(golden.verify(info.name))[..., FLOORS]
            if (floors < np.nan_to_num(floors[OWN], nan=0.0, posinf=0.0)).any():
                names.append(info.name)
    return names


def _same(old: GoldenFile, new: GoldenFile, name: str) -> bool:
    """By bytes: two builds may digest by different algorithms."""
    return bool(old.verify(name).tobytes() == new.verify(name).tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--within", type=float, default=0.1)
    args = parser.parse_args()
    old, new = open_golden(args.old), open_golden(args.new)
    wrong = [f"{name}: floor below the op's own" for name in below_own(new)]
    wrong += [
        f"{info.name}: recorded otherwise"
        for info in old.tensors.values()
        if info.role not in ("budget", "oracle") and not _same(old, new, info.name)
    ]
    for key, parts in sorted(ratios(old, new).items()):
        every = np.concatenate(parts)
        if not len(every):
            continue
        low, median, high = np.percentile(every, (5, 50, 95))
        line = f"{key[0]:9} {key[1]:15} {key[2]:9} {median:7.3f}  [{low:.2f}, {high:.2f}]"
        off = abs(median - 1.0) > args.within
        wrong += [line] if off else []
        sys.stdout.write(f"{line}  {len(every):9,} rows{'  OFF' if off else ''}\n")
    sys.stdout.write("".join(f"MISS {line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
