"""Measures ``record --oracle`` against that of another build: time, processor time and memory.

    python benchmarks/oracle.py OTHER [--layers 4] [--repeats 3] [--threads 2] [--checkpoint DIR]

``OTHER`` is the python of an environment in which the other goldenctl is installed. The builds
take turns in one run, since a machine's speed drifts; least values are shown, as a ratio too. Bars
are held by processor time, which other work on the machine disturbs least. Exits with 1 when one
is missed. ``--layers 0`` takes all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 20  # of ru_maxrss
# At most this part of the other build's time, by tokens; and memory.
BARS = {32: 0.5, 512: 0.4}
PEAK_BAR_GIB = 1.25


@dataclass(frozen=True)
class Sample:
    """One command: wall and processor seconds, and its resident peak."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def measure(python: Path, words: list[str], folder: Path) -> Sample:
    """Run goldenctl of an environment in a folder that has none."""
    started = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere:
        command = [str(python), "-m", "goldenctl", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=nowhere, stderr=nowhere)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{python}: {' '.join(words)}: exit code {process.returncode}")
    wall_s = time.perf_counter() - started
    return Sample(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / GIB)


def least(samples: list[Sample]) -> Sample:
    return Sample(*(min(getattr(s, name) for s in samples) for name in Sample.__annotations__))


def compared(args: argparse.Namespace, folder: Path, tokens: int, dtype: str) -> bool:
    """Let the builds take turns, print what they took; whether the bars hold."""
    pythons = {"other": args.other.absolute(), "this": Path(sys.executable)}
    words = ["record", str(args.checkpoint), "golden.h5", "--force", "--oracle"]
    words += ["--threads", str(args.threads), "--random-tokens", str(tokens), "--dtype", dtype]
    if args.layers:
        words += ["--layers", f"0-{args.layers - 1}", "--logits", "none"]
    samples: dict[str, list[Sample]] = {build: [] for build in pythons}
    for _ in range(args.repeats):
        for build, python in pythons.items():
            samples[build].append(measure(python, words, folder))
    other, this = (least(samples[build]) for build in pythons)
    ratio, bar = this.cpu_s / other.cpu_s, BARS.get(tokens, min(BARS.values()))
    ok = ratio <= bar and this.peak_gib <= PEAK_BAR_GIB
    sys.stdout.write(
        f"{tokens} tokens, {dtype}: cpu {other.cpu_s:.1f} -> {this.cpu_s:.1f} s, "
        f"ratio {ratio:.2f} (<= {bar}); wall {other.wall_s:.1f} -> {this.wall_s:.1f} s; "
        f"peak {other.peak_gib:.2f} -> {this.peak_gib:.2f} GiB {'ok' if ok else 'MISS'}\n"
    )
    sys.stdout.flush()
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    from goldenctl.model.synth import synth

    with tempfile.TemporaryDirectory(prefix="oracle-") as name:
        folder = Path(name)
        args.checkpoint = args.checkpoint or synth("qwen3-0.6b", folder / "model", 0)
        each = [(tokens, dtype) for tokens in args.tokens for dtype in args.dtypes]
        fine = [compared(args, folder, *what) for what in each]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
