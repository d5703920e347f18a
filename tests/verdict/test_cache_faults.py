"""Tests the faults of steps over a cache, on a prompt in chunks and a decode step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from goldenctl.records.report import Report
from goldenctl.replay.backend import Backend
from goldenctl.report.json import load_report
from goldenctl.studies import selftest
from tests.verdict.conftest import TOKENS, Bench, record_tiny

pytestmark = pytest.mark.slow

PAST, OWN = 8, 4  # step 01 takes the last 4 of the prompt's 12 tokens
CHUNK, DECODE = 1, 2
CACHE_FAULTS = {
    "rope_restarts": ("q_rope", "k_rope"),
    "mask_without_past": ("probs",),
    "key_value_swapped": ("scores", "context"),
    "keys_before_rope": ("scores",),
    "cache_lost": ("scores", "context"),
    "cache_not_written": ("scores", "context"),
    "cache_one_early": ("scores", "context"),
}
EVERY_STEP = {"key_value_swapped", "keys_before_rope"}
PLACES = [(fault, tap) for fault, taps in CACHE_FAULTS.items() for tap in taps]


@pytest.fixture(scope="module")
def decoded(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    """Return a golden of three steps: 8 tokens, 4 tokens, and one that is forced."""
    return record_tiny(
        checkpoint_folder,
        tmp_path_factory.mktemp("decoded") / "golden.h5",
        selection=Selection(oracle="budget"),
        case=Case("default", (TOKENS,), None, decode=1, forced=((5,),), prefill_chunk=PAST),
    )


@pytest.fixture(scope="module")
def bench(decoded: GoldenFile, checkpoint_folder: Path) -> Bench:
    return Bench(decoded, checkpoint_folder)


def _attention(bench: Bench, step: int) -> str:
    return next(p for p in bench.graph if f"/steps/{step:02d}/layers/01/attention" in p)


def _faulty(bench: Bench, step: int, tap: str, fault: str) -> NDArray[Any]:
    path = _attention(bench, step)
    sublayer = bench.graph[path]
    op = faulty_op(FAULTS[fault], sublayer.producer(tap), Context(bench.config, sublayer))
    assert op is not None, f"{fault} does not fit {tap}"
    return bench.emulator.output(path, sublayer, op)


def _recorded(bench: Bench, step: int, tap: str) -> NDArray[Any]:
    return bench.golden.map(f"{_attention(bench, step)}/{tap}")


@pytest.mark.parametrize("fault", CACHE_FAULTS)
def test_a_first_step_has_no_cache_to_get_wrong(bench: Bench, fault: str) -> None:
    sublayer = bench.graph[_attention(bench, 0)]
    context = Context(bench.config, sublayer)
    fits = {op.output for op in sublayer.ops if faulty_op(FAULTS[fault], op, context)}
    assert fits == (set(CACHE_FAULTS[fault]) if fault in EVERY_STEP else set())


@pytest.mark.parametrize(("fault", "tap"), PLACES)
@pytest.mark.parametrize("step", [CHUNK, DECODE])
def test_a_cache_fault_is_named(bench: Bench, step: int, fault: str, tap: str) -> None:
    path = _attention(bench, step)
    actual = _faulty(bench, step, tap, fault)
    diagnosis = bench.diagnoser().diagnose(path, bench.graph[path], tap, actual)
    named = {f.name for cause in diagnosis.causes for f in cause.faults}
    # A decode step that restarts is at position 0, where RoPE does nothing.
    same = {"no_rope"} if (fault, step) == ("rope_restarts", DECODE) else set()
    assert named == {fault} | same


@pytest.mark.parametrize(
    ("fault", "empty"),
    [
        ("cache_lost", slice(0, PAST)),
        ("cache_not_written", slice(PAST, None)),
        ("cache_one_early", slice(-1, None)),
    ],
)
def test_scores_of_what_the_cache_lacks_are_zero(bench: Bench, fault: str, empty: slice) -> None:
    right, wrong = _recorded(bench, CHUNK, "scores"), _faulty(bench, CHUNK, "scores", fault)
    shown = np.ones(PAST + OWN, bool)
    shown[empty] = False
    assert not wrong[..., ~shown].any()
    kept = right[..., PAST:] if fault == "cache_one_early" else right[..., shown]
    got = wrong[..., PAST - 1 : -1] if fault == "cache_one_early" else wrong[..., shown]
    np.testing.assert_allclose(got, kept, rtol=1e-5, atol=1e-6)


def test_a_mask_without_past_counts_columns_from_the_first_key(bench: Bench) -> None:
    seen = _faulty(bench, CHUNK, "probs", "mask_without_past") > 0
    assert not seen[..., ~np.tril(np.ones((OWN, PAST + OWN), bool))].any()
    assert seen[..., 0, 0].all()


def test_positions_that_restart_are_those_of_a_first_step(bench: Bench) -> None:
    """The first token of a decode step is then rotated by nothing."""
    wrong = _faulty(bench, DECODE, "k_rope", "rope_restarts")
    np.testing.assert_array_equal(wrong, _recorded(bench, DECODE, "k_norm"))


def _report(golden: GoldenFile, replayed: Path, *options: str) -> Report:
    report = replayed.with_suffix(".json")
    assert run(["replay", str(golden.path), str(replayed), *options]) == 0
    assert run(["diff", str(golden.path), str(replayed), "--json", str(report)]) == 1
    return load_report(report)


@pytest.mark.parametrize("mode", ["op", pytest.param("sublayer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", CACHE_FAULTS)
def test_a_place_may_be_one_step(
    decoded: GoldenFile, backend: Backend, tmp_path: Path, mode: str, fault: str
) -> None:
    place = "cases/default/steps/01/layers/01/attention"
    options = ("--mode", mode, "--inject", f"{fault}@{place}", "--backend", backend.name)
    report = _report(decoded, tmp_path / "run.h5", *options)
    first = next(t for t in report.tensors if not t.ok)
    assert first.name == f"{place}/{CACHE_FAULTS[fault][0]}"
    assert {t.name.rpartition("/")[0] for t in report.tensors if not t.ok} == {place}


def test_a_place_in_no_step_is_refused(
    decoded: GoldenFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["replay", str(decoded.path), str(tmp_path / "run.h5"), "--backend", "torch"]
    assert run([*command, "--inject", "cache_lost@cases/default/steps/00"]) == 2
    assert "no op there can have this fault" in capsys.readouterr().err
    assert run([*command, "--inject", "cache_lost@cases/default/steps/07"]) == 2
    assert "no sublayer or op that is replayed has that name" in capsys.readouterr().err


def test_selftest_tries_every_step_by_itself(
    decoded: GoldenFile,
    checkpoint_folder: Path,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selftest, "FAULTS", {name: FAULTS[name] for name in CACHE_FAULTS})
    monkeypatch.setattr(selftest, "SUBLAYER_ROUNDS", 2)
    for correct in ("ALTERNATIVES", "FUSED"):  # other tests have all of these
        monkeypatch.setattr(selftest, correct, {})
    result = selftest.Tester(
        decoded, checkpoint_folder, backend=backend, layers=frozenset({1})
    ).run()
    tried = {(trial.fault, trial.place.split("/")[3]) for trial in result.trials}
    later = {(fault, step) for fault in CACHE_FAULTS for step in ("01", "02")}
    assert tried == later | {(fault, "00") for fault in EVERY_STEP}
    assert all(trial.caught and trial.named for trial in result.visible)
    assert all(verdict.ok for verdict in result.located)
    assert result.ok


def test_a_single_row_of_nan_is_named(bench: Bench) -> None:
    path = _attention(bench, DECODE)
    actual = np.full_like(_recorded(bench, DECODE, "q_proj"), np.nan)
    diagnosis = bench.diagnoser().diagnose(path, bench.graph[path], "q_proj", actual)
    assert [cause.cause.faults for cause in diagnosis.causes] == [("nan_row",)]
