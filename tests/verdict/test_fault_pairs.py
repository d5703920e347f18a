"""Tests that any two faults go together or are refused in one line, and that blame takes any.

``benchmarks/fault_pairs.py`` tries every pair on InfiniCore; here it is all of them as graphs and a
sample as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.model.config import preset_config
from goldenctl.model.graph import decoder
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, combined, faulty_op
from goldenctl.ops.inject import Injection, inject
from goldenctl.replay.backend import Backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from tests.verdict.conftest import Bench

Q_ROPE = "layers.00.attention.q_rope"


@pytest.mark.parametrize("family", ["tiny", "qwen2-tiny", "llama-tiny"])
@pytest.mark.parametrize("past", [False, True])
def test_two_faults_of_one_op_both_count(family: str, past: bool) -> None:
    """Whatever fits an op together is another op than either alone, and than the right one."""
    config = preset_config(family)
    together = 0
    for sublayer in decoder(config, logits="last", past=past, masked=past):
        context = Context(config, sublayer)
        for op in sublayer.ops:
            alone = {
                f.name: faulty for f in FAULTS.values() if (faulty := faulty_op(f, op, context))
            }
            for first, second in permutations(alone, 2):
                both = combined([FAULTS[first], FAULTS[second]], op, context)
                assert both not in (op, alone[first], alone[second])
                together += both is not None
    assert together > 500


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["theta_1e4", "theta_1e4"], "--inject theta_1e4@{place}: is given twice"),
        (["rope_position_plus_1", "rope_position_minus_1"], "{place} cannot have both"),
        (["scale_2", "zero_row"], "{place} cannot have both"),
        (["rope_interleaved", "no_rope"], "{place} cannot have both"),
        (["rope_interleaved", "theta_1e4", "no_rope"], "{place} cannot have all of them"),
    ],
)
def test_one_that_undoes_another_is_refused(faults: list[str], said: str) -> None:
    config = preset_config("tiny")
    sublayers = {s.name: s for s in decoder(config, logits="last")}
    injections = [Injection(FAULTS[name], Q_ROPE) for name in faults]
    with pytest.raises(UsageError, match=said.format(place=Q_ROPE)):
        inject(sublayers, injections, config)


def _sample(bench: Bench, seed: int) -> list[tuple[str, Injection, Injection]]:
    """A pair for each op that one fits: (tensor, first, second)."""
    rng, found = np.random.default_rng(seed), []
    for path, sublayer in bench.graph.items():
        context = Context(bench.config, sublayer)
        for op in sublayer.ops:
            faults = list(FAULTS.values())
            pairs = [
                pair for pair in permutations(faults, 2) if combined(pair, op, context) is not None
            ]
            if pairs:
                first, second = pairs[int(rng.integers(len(pairs)))]
                name = f"{path}/{op.output}"
                found.append((name, Injection(first, name), Injection(second, name)))
    return found


def test_pairs_are_put_in_and_diagnosed(
    bench_of: Callable[[str], Bench], backend: Backend, checkpoint_folder: Path, tmp_path: Path
) -> None:
    bench = bench_of("float32")
    golden: GoldenFile = bench.golden
    sample = _sample(bench, seed=0)
    faults = tuple(injection for _, *pair in sample for injection in pair)
    options = Options(mode="op", faults=faults)
    summary = replay(golden, checkpoint_folder, tmp_path / "r.h5", backend=backend, options=options)
    assert summary.failed == []
    run, right = open_golden(tmp_path / "r.h5"), []
    for name, first, second in sample[::6]:
        path, _, tap = name.rpartition("/")
        diagnosis = bench.diagnoser().diagnose(path, bench.graph[path], tap, run.map(name))
        assert diagnosis.skipped == ()
        wanted = {first.fault.name, second.fault.name}
        named = [{fault.name for fault in cause.faults} for cause in diagnosis.causes]
        right.append(wanted in named or any(one < wanted for one in named))
    assert np.mean(right) > 0.5
