"""What is special to each family: its mistakes are caught and named, correct kernels pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.modes import BOTH
from goldenctl.model.graph import Sublayer
from goldenctl.model.synth import synth
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from goldenctl.records.report import Report
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Compute
from tests.verdict.conftest import Bench, record_tiny

# By preset: a layer in which each of these faults, of the op that yields this tap, shows.
SHOWS = {
    "gemma3-tiny": {
        "no_embedding_scale": ("embedding", "output"),
        "embedding_scale_exact": ("embedding", "output"),
        "norm_weight_plain": ("layers.00.attention", "post_attention_layernorm"),
        "rope_other_tables": ("layers.00.attention", "q_rope"),
        "scale_by_head": ("layers.00.attention", "scores"),
        "no_window": ("layers.00.attention", "probs"),
        "window_plus_1": ("layers.00.attention", "probs"),
        "window_minus_1": ("layers.00.attention", "probs"),
        "no_norm_behind": ("layers.00.attention", "output"),
        "silu": ("layers.00.mlp", "geglu"),
    },
    "phi3-tiny": {
        "rope_other_tables": ("layers.00.attention", "k_rope"),
        "window_plus_1": ("layers.00.attention", "probs"),
    },
    "glm4-tiny": {"rope_halves": ("layers.00.attention", "q_rope")},
    "olmo2-tiny": {"no_norm_behind": ("layers.00.mlp", "output")},
    "qwen3-moe-tiny": {
        "routing_not_renormalised": ("layers.00.mlp", "routing"),
        "one_expert_fewer": ("layers.00.mlp", "routing"),
        "wrong_expert": ("layers.00.mlp", "expert_down"),
        "one_expert_for_all": ("layers.00.mlp", "expert_gate"),
        "gate_up_swapped_in_one": ("layers.03.mlp", "expert_up"),
        "experts_not_weighted": ("layers.00.mlp", "experts"),
    },
}


@pytest.fixture(scope="module")
def bench_of_preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """Return what records a bfloat16 golden of a preset, with budgets, once."""
    folder, known = tmp_path_factory.mktemp("families"), dict[str, Bench]()

    def made(preset: str) -> Bench:
        if preset not in known:
            model = synth(preset, folder / preset)
            golden = record_tiny(model, folder / f"{preset}.h5", dtype="bfloat16")
            known[preset] = Bench(golden, model)
        return known[preset]

    return made


def judged(
    bench: Bench, graph: Mapping[str, Sublayer], compute: Compute, mode: str, out: Path
) -> Report:
    other = Otherwise(bench.golden, graph, bench.emulator, compute, fused=False)
    return compare(bench.golden, other.run(out, mode, "test"), default_policy())


@pytest.mark.parametrize("preset", SHOWS)
def test_its_mistakes_are_caught_and_named(
    preset: str, bench_of_preset: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of_preset(preset)
    for fault, (short, tap) in SHOWS[preset].items():
        path, sublayer, op = bench.place(f"{short}.{tap}")
        changed = faulty_op(FAULTS[fault], op, Context(bench.config, sublayer))
        assert changed is not None, fault
        graph = {path: replace(sublayer, ops=(changed,))}
        report = judged(bench, graph, lambda _: None, "op", tmp_path / f"{fault}.h5")
        assert [t.ok for t in report.compared if t.tap == tap] == [False], fault
        actual = bench.faulty(f"{short}.{tap}", fault)
        causes = bench.diagnose(f"{short}.{tap}", np.asarray(actual)).causes
        assert fault in [each.name for cause in causes for each in cause.faults]


@pytest.mark.parametrize("preset", ["gemma3-tiny", "qwen3-moe-tiny"])
def test_correct_kernels_pass(
    preset: str, bench_of_preset: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of_preset(preset)
    graph = {path: s for path, s in bench.graph.items() if "layers/00" in path}
    for label, compute in ALTERNATIVES.items():
        report = judged(bench, graph, compute, BOTH, tmp_path / "run.h5")
        assert [(label, t.name, t.share) for t in report.compared if not t.ok] == []


def test_fused_kernels_keep_to_the_window(
    bench_of_preset: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of_preset("gemma3-tiny")
    graph = {p: s for p, s in bench.graph.items() if p.endswith("layers/00/attention")}
    for label in ("fused: torch's sdpa", "fused: online softmax"):
        fused = FUSED[label]
        other = Otherwise(bench.golden, graph, bench.emulator, only_fused(fused), fused=True)
        report = compare(bench.golden, other.run(tmp_path / "r.h5", BOTH, label), default_policy())
        assert [(label, t.name, t.share) for t in report.compared if not t.ok] == []
