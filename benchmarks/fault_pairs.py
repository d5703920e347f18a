"""Do any two faults go together? Every ordered pair on one op, and random ones on the other ops of
a sublayer, put into InfiniCore and diagnosed.

``python benchmarks/fault_pairs.py [--rounds N] [--diagnosed SHARE]`` prints how many pairs an op
takes, how many are refused, what failed to run or to be diagnosed, and how many were named. Each
round replays one pair in every op that still has one; ``--rounds`` ends it early.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from itertools import permutations
from pathlib import Path

import click

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.graph import Sublayer
from goldenctl.model.inputs import Inputs
from goldenctl.model.synth import synth
from goldenctl.model.tokens import make_cases
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, combined, faulty_op
from goldenctl.ops.inject import Injection
from goldenctl.reference.patch import Emulator
from goldenctl.reference.record import Recording, record
from goldenctl.replay.backend import open_backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.studies.diagnose import Diagnoser

Pair = tuple[Injection, Injection]


def recorded(folder: Path) -> GoldenFile:
    """Record a tiny model with a decode step, so that faults of caches fit too."""
    model = synth("tiny", folder / "model")
    config = load_config(model)
    cases = make_cases(Inputs(random_tokens=12, decode=1), model, config)
    selection = Selection(oracle="budget")
    record(Recording(Checkpoint.open(model), config, cases, selection=selection), folder / "g.h5")
    return open_golden(folder / "g.h5")


def pairs_of(graph: dict[str, Sublayer], golden: GoldenFile) -> tuple[dict[str, list[Pair]], int]:
    """Return every pair that an op takes, by tensor, and how many are refused."""
    taken: dict[str, list[Pair]] = {}
    refused = 0
    for path, sublayer in graph.items():
        context = Context(golden.config, sublayer)
        for op in sublayer.ops:
            name = f"{path}/{op.output}"
            fitting = [f for f in FAULTS.values() if faulty_op(f, op, context)]
            every = list(permutations(fitting, 2))
            good = [pair for pair in every if combined(pair, op, context) is not None]
            refused += len(every) - len(good)
            random.Random(name).shuffle(good)
            taken[name] = [(Injection(a, name), Injection(b, name)) for a, b in good]
    return taken, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--diagnosed", type=float, default=0.05, help="share that blame looks at")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    chosen = random.Random(0)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        golden = recorded(folder)
        graph = choose_sublayers(golden, golden.config, None, fused=False)
        emulator = Emulator(golden, golden.config, Checkpoint.open(folder / "model"), "float32")
        diagnoser, backend = Diagnoser(golden, emulator), open_backend("infinicore")
        taken, counts["refused"] = pairs_of(graph, golden)
        for _ in range(arguments.rounds):
            pairs = {name: queue.pop() for name, queue in taken.items() if queue}
            if not pairs:
                break
            options = Options(mode="op", faults=tuple(i for pair in pairs.values() for i in pair))
            run_path = folder / "r.h5"
            failed = replay(
                golden, folder / "model", run_path, backend=backend, options=options
            ).failed
            counts["put in"] += len(pairs)
            counts["sublayers failed"] += len(failed)
            run = open_golden(run_path)
            for name, pair in pairs.items():
                if chosen.random() < arguments.diagnosed:
                    path, _, tap = name.rpartition("/")
                    found = diagnoser.diagnose(path, graph[path], tap, run.map(name))
                    wanted = {injection.fault.name for injection in pair}
                    named = [{fault.name for fault in cause.faults} for cause in found.causes]
                    counts["diagnosed"] += 1
                    counts["named"] += wanted in named
                    counts["one of them named"] += any(one < wanted for one in named)
                    counts["guesses skipped"] += len(found.skipped)
    for what, count in counts.items():
        click.echo(f"{what}: {count:,}")


if __name__ == "__main__":
    main()
