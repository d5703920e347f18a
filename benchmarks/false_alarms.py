"""How often does a correct engine fail, and one in few bits pass? Many random models.

``python benchmarks/false_alarms.py [--seeds N] [--tokens N] [--dtypes A,B]`` records N models of
each family in each dtype, with a decode step, and judges in every mode: InfiniCore's CPU build,
PyTorch's fused attention, every correct alternative of the selftest, and linear layers in few
bits. It prints how many runs and tensors failed and by which checks, how many were noted, and
what used most of its tolerance. A model takes about a minute and a half of one core per dtype.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from torch import Tensor

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import load_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.modes import MODES
from goldenctl.golden.selection import Selection
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.inputs import Inputs
from goldenctl.model.synth import synth
from goldenctl.model.tokens import make_cases
from goldenctl.ops.few_bits import FEW_BITS
from goldenctl.places import short_name
from goldenctl.records.report import Report
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.faulty import EMULATIONS, Call
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Compute, Emulator
from goldenctl.reference.record import Recording, record
from goldenctl.replay.backend import open_backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay

JUDGED = [mode for mode in MODES if mode != "op"]  # op+sublayer says of ops what op does
PRESETS = ("tiny", "qwen2-tiny", "llama-tiny", "mistral-tiny")
FEW = "in few bits"


@dataclass
class Tally:
    """Verdicts on one kind of engine in one mode."""

    runs: int = 0
    failed_runs: int = 0
    verdicts: int = 0
    failed: int = 0
    notes: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    worst: tuple[float, str] = (0.0, "")
    passed: Counter[str] = field(default_factory=Counter)

    def take(self, report: Report, engine: str, model: str) -> None:
        self.runs += 1
        self.failed_runs += not report.ok
        self.passed[engine] += report.ok
        for tensor in report.compared:
            self.verdicts += 1
            self.failed += not tensor.ok
            self.notes += bool(tensor.note)
            self.checks.update(check.metric for check in tensor.checks if check.share > 1.0)
            where = f"{engine}, {model} {short_name(tensor.sublayer)}.{tensor.tap}"
            self.worst = max(self.worst, (tensor.share, where))

    def __str__(self) -> str:
        runs = f"{self.failed_runs:,} of {self.runs:,} runs failed"
        by = ", ".join(f"{name} {count:,}" for name, count in self.checks.most_common())
        tensors = f"{self.failed:,} of {self.verdicts:,} tensors ({by or 'no check'})"
        return f"{runs}, {tensors}, {self.notes:,} notes; most used {self.worst[0]:.0%}"


def few_bits(name: str, size: int) -> Compute:
    """Return linear layers in few bits, where they are wide enough for groups of ``size``."""

    def compute(call: Call) -> Tensor | None:
        fits = call.kind == "linear" and call.inputs[0].shape[-1] % size == 0
        return EMULATIONS[name](call) if fits else None

    return compute


class Bench:
    """One recorded model, and the engines that are judged by its golden."""

    def __init__(self, folder: Path, preset: str, seed: int, dtype: str, tokens: int) -> None:
        self._folder = folder
        self._model = synth(preset, folder / "model", seed)
        weights = Checkpoint.open(self._model)
        inputs = Inputs(random_tokens=tokens, seed=seed, decode=1)
        cases = make_cases(inputs, self._model, weights.config)
        selection = Selection(oracle="budget")
        record(Recording(weights, weights.config, cases, dtype, selection=selection), self._golden)
        self.golden = open_golden(self._golden)
        config = weights.config
        heads = config.num_attention_heads * config.head_dim
        self._widths = (config.hidden_size, config.intermediate_size, heads)
        self._graph = choose_sublayers(self.golden, weights.config, None, fused=False)
        self._emulator = Emulator(self.golden, weights.config, weights, dtype)

    @property
    def _golden(self) -> Path:
        return self._folder / "golden.h5"

    def runs(self, mode: str) -> Iterator[tuple[str, str, GoldenFile]]:
        """Yield runs in a mode: the kind of engine, its name and what it computed."""
        path = self._folder / "run.h5"
        for name, attention in (("infinicore", "eager"), ("torch", "sdpa")):
            options = Options(mode=mode, attention=attention)
            backend = open_backend(name)
            replay(self.golden, self._model, path, backend=backend, options=options)
            yield "engines", f"{name}, {attention}", open_golden(path)
        for name, compute in ALTERNATIVES.items():
            yield "alternatives", name, self._otherwise(compute, mode, fused=False)
        for name, fused in FUSED.items():
            yield "alternatives", name, self._otherwise(only_fused(fused), mode, fused=True)
        for name, _, size in FEW_BITS:
            if any(width % size == 0 for width in self._widths):
                yield FEW, name, self._otherwise(few_bits(name, size), mode, fused=False)

    def _otherwise(self, compute: Compute, mode: str, *, fused: bool) -> GoldenFile:
        other = Otherwise(self.golden, self._graph, self._emulator, compute, fused=fused)
        return other.run(self._folder / "run.h5", mode, "alternative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--dtypes", default="float32,bfloat16,float16")
    arguments = parser.parse_args()
    policy = load_policy("default")
    for dtype in arguments.dtypes.split(","):
        tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        for preset in PRESETS:
            for seed in range(arguments.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    bench = Bench(Path(folder), preset, seed, dtype, arguments.tokens)
                    for mode in JUDGED:
                        for kind, name, run in bench.runs(mode):
                            report = compare(bench.golden, run, policy)
                            tallies[kind, mode].take(report, name, f"{preset}:{seed}")
        for (kind, mode), tally in sorted(tallies.items()):
            click.echo(f"{dtype:9} {mode:12} {kind}: {tally}")
            if kind == FEW and +tally.passed:
                click.echo(f"  passed: {dict(+tally.passed)}")
            elif kind != FEW:
                click.echo(f"  {tally.worst[1]}")


if __name__ == "__main__":
    main()
