"""Damages a golden, a run, a manifest and a safetensors file, and counts what is said of it.

``python tests/integrity/damage.py [--flips N] [--mutations N] [--seed N] [--keep FOLDER]``
prints one line a subject and ends with exit code 1 when a file was ever read otherwise than it
was written, or crashed, hung or ended in a traceback; those files are kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from campaign import FINE, Tally, run
from hdf5_blocks import blocks
from mutate import Mutation, flips, mutations, truncations
from subjects import (
    check_judge,
    checkpoint_judge,
    golden_and_run,
    manifest_judge,
    manifest_of,
    reading_judge,
    set_of,
    verdict_judge,
    weights_of,
)

TRUNCATIONS = 50


def damage(
    folder: Path, *, count: int, seed: int, cuts: int = TRUNCATIONS
) -> Iterator[tuple[str, Tally]]:
    """Yield what became of ``cuts`` truncations and ``count`` bit flips of each kind of file."""
    golden, run_file = golden_and_run(folder)
    weights = weights_of(folder)
    verdict = verdict_judge(golden, run_file)
    in_set, its_manifest = set_of(golden)
    subjects = (
        ("golden, verdict of diff", golden, verdict),
        ("run, verdict of diff", run_file, verdict),
        ("golden of a set, check", in_set, check_judge(in_set)),
        ("manifest of a set, check", its_manifest, check_judge(its_manifest)),
        ("manifest", manifest_of(golden), manifest_judge(manifest_of(golden))),
        ("safetensors, fingerprint", weights, checkpoint_judge(weights)),
        ("safetensors, its header", weights, checkpoint_judge(weights)),
    )
    for name, path, judge in subjects:
        data = path.read_bytes()
        variants = chain(truncations(data, cuts), _flips(name, data, count, seed))
        yield name, run(variants, path, judge)
        path.write_bytes(data)


def _flips(name: str, data: bytes, count: int, seed: int) -> Iterator[Mutation]:
    if not name.endswith("header"):
        return flips(data, count, seed=seed)
    end = 8 + int.from_bytes(data[:8], "little")
    return (Mutation(m.kind, m.data + data[end:]) for m in flips(data[:end], count, seed=seed))


def hostile(folder: Path, *, count: int, seed: int) -> Tally:
    """Return what becomes of ``count`` mutations of a golden, two in three with right checksums
    of HDF5: who wrote those could have written anything, so they may be read as something else."""
    golden, _ = golden_and_run(folder)
    data = golden.read_bytes()
    variants = mutations(data, count, seed=seed, blocks=blocks(data))
    tally = run(variants, golden, reading_judge(golden), fine=(*FINE, "OTHER"))
    golden.write_bytes(data)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--mutations", type=int, default=14000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None)
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        results = chain(
            damage(Path(folder), count=options.flips, seed=options.seed),
            _named("golden, mutations", Path(folder), options),
        )
        for name, tally in results:
            seconds, started = time.monotonic() - started, time.monotonic()
            sys.stdout.write(f"{name}: {tally} ({seconds:.0f} s)\n")
            sys.stdout.flush()
            bad += len(tally.bad)
            for number, (word, mutation) in enumerate(tally.bad):
                sys.stdout.write(f"  {mutation.kind}: {word}\n")
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{name.split(',')[0]}-{number}").write_bytes(mutation.data)
    return 1 if bad else 0


def _named(name: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Tally]]:
    yield name, hostile(folder, count=options.mutations, seed=options.seed)


if __name__ == "__main__":
    raise SystemExit(main())
