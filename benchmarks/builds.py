"""Measures this build against another one, end to end: record, diff, check, push and pull.

    python benchmarks/builds.py OTHER [--repeats 5] [--tokens 512] [--scratch DIR] [--json FILE]

``OTHER`` is the python of an environment in which the other goldenctl is installed. Each build
reads the files that it wrote itself, of a random checkpoint of Qwen3-0.6B's shape and in the page
cache. The two take turns in one run, since a machine's speed drifts; medians are shown with the
load of the machine. Exits with 1 when a bar is missed; needs about 15 GiB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
# At most this part of the other build's wall time.
BARS = {"diff": 0.40, "check": 0.50, "pull": 0.50}
_BLOCK_BYTES = 16 << 20


class Build:
    """One goldenctl, and a folder of its own files: two goldens, the set ``s`` and a store."""

    def __init__(self, name: str, python: Path, folder: Path, checkpoint: Path) -> None:
        self.name = name
        self._python = python
        self._checkpoint = checkpoint
        self.folder = folder
        (folder / "store").mkdir(parents=True)
        (folder / "in" / "s").mkdir(parents=True)

    def run(self, *arguments: str) -> float:
        """Run a command in the folder; return the seconds that it took."""
        started = time.perf_counter()
        command = [str(self._python), "-m", "goldenctl", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode > 1:  # 1 is a verdict
            sys.exit(f"{self.name}: {' '.join(arguments)}: {done.stderr}")
        return seconds

    def record(self, out: str, tokens: int, threads: int = THREADS) -> float:
        (self.folder / out).unlink(missing_ok=True)
        options = ["--random-tokens", str(tokens), "--threads", str(threads)]
        return self.run("record", str(self._checkpoint), out, *options)

    def prepare(self, tokens: int) -> None:
        """Write two goldens that differ by rounding, a set of the first, and a store of it."""
        self.record("1.h5", tokens)
        self.record("2.h5", tokens, threads=1)
        (self.folder / "sets" / "s").mkdir(parents=True)
        (self.folder / "sets" / "s" / "v1.h5").hardlink_to(self.folder / "1.h5")
        self.run("manifest", "s@v1", "--goldens", "sets")
        self.run("push", "s", "--goldens", "sets", "--store", "store")
        shutil.copy(self.folder / "sets" / "s" / "manifest.json", self.folder / "in" / "s")

    def diff(self) -> float:
        self._warm("1.h5", "2.h5")
        return self.run("diff", "1.h5", "2.h5")

    def check(self) -> float:
        self._warm("1.h5")
        return self.run("check", "s", "--integrity", "--goldens", "sets")

    def pull(self) -> float:
        (self.folder / "in" / "s" / "v1.h5").unlink(missing_ok=True)
        self._warm("store")
        return self.run("pull", "s", "--goldens", "in", "--store", "store")

    def _warm(self, *names: str) -> None:
        for name in names:
            path = self.folder / name
            for file in [path] if path.is_file() else path.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        while opened.read(_BLOCK_BYTES):
                            pass


def measured(
    builds: tuple[Build, Build], repeats: int, tokens: int
) -> dict[str, dict[str, list[float]]]:
    """Return seconds by what was done and by build, which take turns."""
    done: dict[str, Callable[[Build], float]] = {
        "record": lambda build: build.record("3.h5", tokens),
        "diff": Build.diff,
        "check": Build.check,
        "pull": Build.pull,
    }
    seconds: dict[str, dict[str, list[float]]] = {what: {} for what in done}
    for turn in range(repeats):
        for what, act in done.items():
            for build in builds if turn % 2 == 0 else reversed(builds):
                took = act(build)
                seconds[what].setdefault(build.name, []).append(took)
                load = os.getloadavg()[0]
                sys.stderr.write(f"{what:7} {build.name:6} {took:6.2f} s, load {load:.1f}\n")
    return seconds


def said(seconds: dict[str, dict[str, list[float]]]) -> bool:
    """Print medians and ratios; whether every bar holds."""
    fine = True
    for what, by_build in seconds.items():
        medians = {name: statistics.median(took) for name, took in by_build.items()}
        ratio = medians["this"] / medians["other"]
        bar = BARS.get(what)
        ok = bar is None or ratio <= bar
        fine &= ok
        verdict = "" if bar is None else f"<= {bar:.2f} {'ok' if ok else 'MISS'}"
        sys.stdout.write(
            f"{what:7} other {medians['other']:6.2f} s, this {medians['this']:6.2f} s, "
            f"ratio {ratio:.2f} {verdict}\n"
        )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="python of the other build's environment")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    parser.add_argument("--json", type=Path, help="write all seconds here")
    args = parser.parse_args()
    from goldenctl.model.synth import synth

    with tempfile.TemporaryDirectory(prefix="builds-", dir=args.scratch) as name:
        scratch = Path(name)
        checkpoint = synth("qwen3-0.6b", scratch / "model", 0)
        pythons = {"other": args.other.absolute(), "this": Path(sys.executable)}
        builds = [Build(n, python, scratch / n, checkpoint) for n, python in pythons.items()]
        for build in builds:
            build.prepare(args.tokens)
        seconds = measured((builds[0], builds[1]), args.repeats, args.tokens)
    if args.json:
        args.json.write_text(json.dumps(seconds, indent=1) + "\n")
    return 0 if said(seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
