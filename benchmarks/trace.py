"""Measures what ``goldenctl trace`` costs the program that it watches.

    python benchmarks/trace.py [--layers N] [--tokens N] [--turns N] [--dtype fp32|bf16]

The program is the example engine on a random checkpoint of Qwen3-0.6B's shape, with as many of
its layers as are asked for: InfiniCore's CPU product makes one of them half a second in float32.
It runs as it is, with the library preloaded and filtered to nothing, and with everything kept,
in turns, since a machine's speed drifts. Times are of the program alone: digesting the checkpoint
comes before. Compared are the shortest runs, by wall clock and by processor time; a busy machine
lengthens the first. Exits with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from goldenctl.families import PRESETS
from goldenctl.infini.find import find_install
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import parse_config
from goldenctl.model.synth import synth_config
from goldenctl.trace.build import build_shim
from goldenctl.trace.digest import native_digest_rows
from goldenctl.trace.launch import Launch, launch
from goldenctl.trace.weights import Book
from tests.trace.example_engine import built, words

BARS = {"filtered to nothing": 1.01, "everything kept": 1.5}


@dataclass(frozen=True)
class Sample:
    """One run of the program, and the size of what it left."""

    wall_s: float
    cpu_s: float
    log_bytes: int


def measure(command: list[str], shim: Path, settings: dict[str, str] | None) -> Sample:
    """Run the program, traced where there are settings."""
    with tempfile.TemporaryDirectory(prefix="trace-") as name:
        folder = Path(name)
        cpu, started = os.times(), time.perf_counter()
        if settings is None:
            status = os.spawnv(os.P_WAIT, command[0], command)
        else:
            status = launch(Launch(command, shim, folder, settings)).status
        wall_s, after = time.perf_counter() - started, os.times()
        assert status == 0, status
        size = sum(path.stat().st_size for path in folder.glob("*.calls"))
    spent = after.children_user - cpu.children_user + after.children_system - cpu.children_system
    return Sample(wall_s, spent, size)


def rounds(args: argparse.Namespace, scratch: Path) -> dict[str, list[Sample]]:
    """Return the samples of each way to run the program, taken in turns."""
    install = find_install()
    model = scratch / "model"
    shape = {**PRESETS["qwen3-0.6b"], "num_hidden_layers": args.layers}
    synth_config(parse_config(shape, where="shape"), model, 0)
    shim, table = build_shim(install), scratch / "weights"
    started = time.perf_counter()
    with Checkpoint.open(model) as checkpoint:
        Book.of(checkpoint, native_digest_rows(shim)).write_table(table)
    say(f"digested the checkpoint in {time.perf_counter() - started:.1f} s")
    tokens = tuple(range(5, 5 + args.tokens))
    command = [str(built(install)), *words(model, "--dtype", args.dtype, tokens=tokens)]
    ways = {
        "as it is": None,
        "filtered to nothing": {"GOLDENCTL_TRACE_OPS": ""},
        "everything kept": {"GOLDENCTL_TRACE_WEIGHTS": str(table)},
    }
    samples: dict[str, list[Sample]] = {way: [] for way in ways}
    for turn in range(args.turns + 1):
        for way, settings in ways.items() if turn % 2 else reversed(ways.items()):
            sample = measure(command, shim, settings)
            say(f"turn {turn}: {way}: {sample.wall_s:.1f} s, processor {sample.cpu_s:.1f} s")
            if turn:  # the first brings the files into memory
                samples[way].append(sample)
    return samples


def shortest(samples: list[Sample], field: str) -> float:
    return min(getattr(sample, field) for sample in samples)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trace-") as scratch:
        samples = rounds(args, Path(scratch))
    plain = samples["as it is"]
    missed = False
    sys.stdout.write(f"{args.layers} layers, {args.tokens} tokens, {args.dtype}\n")
    sys.stdout.write("                      wall s   cpu s  log MiB  wall ratio  cpu ratio\n")
    for way, ours in samples.items():
        wall_s, cpu_s = shortest(ours, "wall_s"), shortest(ours, "cpu_s")
        ratio = cpu_s / shortest(plain, "cpu_s")
        bar = BARS.get(way, "")
        missed |= not ratio <= (bar or 1.0)
        sys.stdout.write(
            f"{way:20} {wall_s:8.2f} {cpu_s:7.2f} {ours[0].log_bytes / (1 << 20):8.1f} "
            f"{wall_s / shortest(plain, 'wall_s'):10.3f} {ratio:10.3f}{bar and f'  <= {bar}'}\n"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
