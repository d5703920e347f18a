"""Tests which ops are called culprits, and the words of the depth table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.localize import culprits, depths
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.ops.inject import parse_injection
from goldenctl.places import short_name
from goldenctl.records.report import Report
from goldenctl.replay.backend import Backend
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from tests.verdict.conftest import Bench

Replayed = Callable[..., Report]


@pytest.fixture
def replayed(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path, backend: Backend, tmp_path: Path
) -> Replayed:
    """Return what replays with faults and compares."""

    def report(mode: str, *faults: str, taps: str = "op") -> Report:
        golden = golden_of("float32", "budget", taps)
        options = Options(mode=mode, faults=tuple(map(parse_injection, faults)))
        path = tmp_path / f"{mode}.h5"
        replay(golden, checkpoint_folder, path, backend=backend, options=options)
        return compare(golden, open_golden(path), default_policy())

    return report


def _found(report: Report, bench: Bench) -> list[str]:
    return [f"{short_name(t.sublayer)}.{t.tap}" for t in culprits(report, bench.graph)]


@pytest.mark.parametrize("mode", ["sublayer", "op"])
def test_victims_are_no_culprits(
    replayed: Replayed, bench_of: Callable[[str], Bench], mode: str
) -> None:
    report = replayed(mode, "rope_interleaved@layers.02.attention.q_rope")
    wrong = [t.tap for t in report.tensors if not t.ok]
    assert _found(report, bench_of("float32")) == ["layers.02.attention.q_rope"]
    assert (len(wrong) > 1) == (mode == "sublayer")


@pytest.mark.parametrize("mode", ["sublayer", "op"])
def test_independent_culprits_are_all_found(
    replayed: Replayed, bench_of: Callable[[str], Bench], mode: str
) -> None:
    places = ["layers.00.attention.k_norm", "layers.00.attention.v_proj", "layers.03.mlp.swiglu"]
    report = replayed(mode, *(f"scale_1.02@{place}" for place in places))
    assert sorted(_found(report, bench_of("float32"))) == sorted(places)


def test_only_op_mode_sees_a_culprit_behind_another(
    replayed: Replayed, bench_of: Callable[[str], Bench]
) -> None:
    places = ["layers.01.mlp.gate_proj", "layers.01.mlp.swiglu"]
    faults = [f"scale_1.02@{place}" for place in places]
    assert _found(replayed("sublayer", *faults), bench_of("float32")) == places[:1]
    assert _found(replayed("op", *faults), bench_of("float32")) == places


def test_with_sublayer_taps_the_output_stands_for_its_ops(
    replayed: Replayed, bench_of: Callable[[str], Bench]
) -> None:
    report = replayed("sublayer", "no_norm@layers.01.mlp", taps="sublayer")
    assert _found(report, bench_of("float32")) == ["layers.01.mlp.output"]


def test_words_of_depth(replayed: Replayed) -> None:
    fault = "scale_1.02@layers.01.mlp.swiglu"
    local, chain = replayed("sublayer", fault), replayed("chain", fault)
    culprit = "cases/default/steps/00/layers/01/mlp"
    words = {short_name(d.name): d.word for d in depths(local, chain, {culprit})}
    assert words["layers.00.mlp"] == ""
    assert words["layers.01.mlp"] == "culprit"
    assert words["layers.02.attention"] in ("victim", "amplifier")
    assert words["lm_head"] in ("victim", "amplifier")


def test_nothing_is_wrong_with_a_correct_backend(
    replayed: Replayed, bench_of: Callable[[str], Bench]
) -> None:
    local, chain = replayed("sublayer"), replayed("chain")
    assert _found(local, bench_of("float32")) == []
    assert {d.word for d in depths(local, chain, set())} == {""}
