"""How often does a correct engine fail? Many random models, replayed on InfiniCore's CPU build.

``python benchmarks/false_alarms.py [--seeds N]`` prints, by dtype and replay mode, the number of
tensors judged by a recorded budget, how many failed, and the largest shares of tolerance used.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import click

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import load_policy
from goldenctl.golden.file import open_golden
from goldenctl.golden.layout import Selection
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.synth import synth
from goldenctl.model.tokens import Inputs, make_cases
from goldenctl.places import short_name
from goldenctl.records.report import TensorResult
from goldenctl.reference.record import Recording, record
from goldenctl.replay.backend import open_backend
from goldenctl.replay.run import Options, replay

PRESETS = ("tiny", "qwen2-tiny", "llama-tiny", "mistral-tiny")


def judged(folder: Path, preset: str, seed: int, dtype: str) -> dict[str, list[TensorResult]]:
    """Record one random model and return its verdicts by replay mode."""
    model, golden_path, run_path = folder / "model", folder / "golden.h5", folder / "run.h5"
    synth(preset, model, seed)
    config = load_config(model)
    cases = make_cases(Inputs(random_tokens=24, seed=seed), model, config)
    recording = Recording(
        Checkpoint.open(model), config, cases, dtype=dtype, selection=Selection(oracle="budget")
    )
    record(recording, golden_path)
    golden, backend, found = open_golden(golden_path), open_backend("infinicore"), {}
    for mode in ("op", "sublayer", "chain"):
        replay(golden, model, run_path, backend=backend, options=Options(mode=mode))
        report = compare(golden, open_golden(run_path), load_policy("default"))
        found[mode] = [tensor for tensor in report.tensors if tensor.rule == "budget"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    for dtype in ("float32", "bfloat16"):
        results: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for preset in PRESETS:
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    for mode, tensors in judged(Path(folder), preset, seed, dtype).items():
                        results[mode] += [
                            (t.share, f"{preset}:{seed} {short_name(t.sublayer)}.{t.tap}")
                            for t in tensors
                        ]
        for mode, shares in results.items():
            failed = sum(share > 1 for share, _ in shares)
            worst = ", ".join(f"{share:.2f} {name}" for share, name in sorted(shares)[-4:][::-1])
            click.echo(f"{dtype:9} {mode:9} {failed} of {len(shares)} failed; {worst}")


if __name__ == "__main__":
    main()
