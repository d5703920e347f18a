"""Tests the claim that verdicts can be trusted: every fault on one layer of a real backend."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from goldenctl.cli import run
from goldenctl.diff import budget
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.model.config import preset_config
from goldenctl.model.graph import decoder
from goldenctl.model.synth import synth
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from goldenctl.records.trials import LEAST_CAUGHT, LEAST_LOCATED, LEAST_NAMED, Selftest
from goldenctl.replay.backend import Backend
from goldenctl.studies import selftest
from goldenctl.studies.selftest import spread
from tests.verdict.conftest import record_tiny

LAYERS = frozenset({1})
DTYPES = (pytest.param("float32", marks=pytest.mark.slow), "bfloat16")


@pytest.fixture(scope="module")
def tested(
    golden_of: Callable[..., GoldenFile],
    checkpoint_folder: Path,
    backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Selftest]:
    """Return what runs the selftest of one layer in a dtype, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def of(dtype: str) -> Selftest:
        kept = shared / f"selftest-{dtype}.msgpack"
        with (shared / f"selftest-{dtype}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                golden = golden_of(dtype)
                tester = selftest.Tester(golden, checkpoint_folder, backend=backend, layers=LAYERS)
                kept.write_bytes(msgspec.msgpack.encode(tester.run()))
            return msgspec.msgpack.decode(kept.read_bytes(), type=Selftest)

    return of


def _unnamed(result: Selftest) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(t.fault, t.place, t.causes) for t in result.visible if not t.named]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_layer_keeps_the_bars(tested: Callable[[str], Selftest], dtype: str) -> None:
    result = tested(dtype)
    located = [verdict.ok for verdict in result.located]
    escaped = [(t.fault, t.place, t.effect) for t in result.visible if not t.caught]
    elsewhere = [verdict for verdict in result.located if not verdict.ok]
    assert len(result.visible) > 100
    assert result.rate(lambda t: t.caught) >= LEAST_CAUGHT, escaped
    assert len(located) == 48
    assert sum(located) / len(located) >= LEAST_LOCATED, elsewhere
    assert result.rate(lambda t: t.named) >= LEAST_NAMED, _unnamed(result)
    assert result.false_alarms == []
    assert result.wrong_names == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_fault_that_fits_was_tried(tested: Callable[[str], Selftest], dtype: str) -> None:
    tried = {trial.fault for trial in tested(dtype).trials}
    # What no op of a Qwen3 decoder layer can have, what this width leaves out, padding, and a
    # cache.
    elsewhere = {"embedding_shifted", "untied_head", "no_bias", "weight_transposed"}
    elsewhere |= {"no_padding_mask", "rope_restarts", "mask_without_past"}
    elsewhere |= {name for name in FAULTS if name.startswith("cache_")}
    config = preset_config("tiny")
    places = [(op, Context(config, s)) for s in decoder(config, logits="all") for op in s.ops]
    fitting = {f.name for f in FAULTS.values() if any(faulty_op(f, *place) for place in places)}
    assert fitting - tried <= elsewhere | {"theta_1e6", "eps_1e-6"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_this_input_does_not_show_is_counted_apart(
    tested: Callable[[str], Selftest], dtype: str
) -> None:
    result = tested(dtype)
    assert 0 < len(result.visible) < len(result.trials)
    assert all(trial.effect < 8.0 for trial in result.trials if not trial.visible)


def test_a_gate_by_cosine_lets_faults_pass(tested: Callable[[str], Selftest]) -> None:
    result = tested("bfloat16")
    assert result.rate(lambda t: t.gates["cosine >= 0.99"]) < result.rate(lambda t: t.caught)


@pytest.mark.slow
@pytest.mark.parametrize("looser", [1.0, 50.0], ids=["as it is", "50 times"])
def test_loosened_tolerances_are_noticed(
    golden_of: Callable[..., GoldenFile],
    checkpoint_folder: Path,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    looser: float,
) -> None:
    """The bar of caught faults must break when a verdict allows 50 times as much."""
    monkeypatch.setattr(budget, "L2_FACTOR", looser * budget.L2_FACTOR)
    monkeypatch.setattr(budget, "MAX_FACTOR", looser * budget.MAX_FACTOR)
    monkeypatch.setattr(budget, "USUAL", looser * budget.USUAL)
    # A scale of 1.02 is a bias of more than a unit, which no factor loosens.
    monkeypatch.setattr("goldenctl.diff.further.measure_bias", lambda *_: None)
    monkeypatch.setattr(selftest, "FAULTS", {n: FAULTS[n] for n in ("scale_1.02", "zero_row")})
    monkeypatch.setattr(selftest, "SUBLAYER_ROUNDS", 1)
    golden = golden_of("bfloat16")
    result = selftest.Tester(golden, checkpoint_folder, backend=backend, layers=LAYERS).run()
    caught = result.rate(lambda t: t.caught)
    assert (caught >= LEAST_CAUGHT) == (looser == 1.0)
    assert {t.fault for t in result.visible if not t.caught} <= {"scale_1.02"}


def test_another_way_to_write_a_fault_is_no_wrong_name(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled twice and doubled is scaled by hidden size, where that is four times head_dim."""
    folder = synth("llama-tiny", tmp_path / "model")
    golden = record_tiny(folder, tmp_path / "golden.h5")
    tried = ("scale_by_hidden", "scale_twice", "scale_2")
    monkeypatch.setattr(selftest, "FAULTS", {name: FAULTS[name] for name in tried})
    monkeypatch.setattr(selftest, "ALTERNATIVES", {})
    monkeypatch.setattr(selftest, "FUSED", {})
    monkeypatch.setattr(selftest.Tester, "_other_engines", lambda *_: None)
    result = selftest.Tester(golden, folder, backend=backend, layers=LAYERS).run()
    assert {"scale_by_hidden", "scale_twice"} <= {t.fault for t in result.visible}
    assert result.wrong_names == []


@pytest.mark.parametrize(
    ("oracle", "taps"), [("none", "op"), ("budget", "sublayer")], ids=["oracle", "taps"]
)
def test_golden_without_budgets_or_taps_is_refused(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path, oracle: str, taps: str
) -> None:
    golden = golden_of("float32", oracle, taps)
    backend = Backend("none", ("none",))
    with pytest.raises(UsageError, match="needs budgets and the taps of every op"):
        selftest.Tester(golden, checkpoint_folder, backend=backend, layers=None)


@pytest.mark.parametrize(
    ("kept", "layers"),
    [
        (range(1), {0}),
        (range(4), {0, 1, 2, 3}),
        (range(28), {0, 9, 18, 27}),
        (range(30), {0, 10, 19, 29}),
        ([2, 5], {2, 5}),
        ([1, 3, 5, 7, 9, 11, 13], {1, 5, 9, 13}),
    ],
)
def test_layers_are_spread_over_those_that_are_kept(kept: Sequence[int], layers: set[int]) -> None:
    assert spread(kept) == layers


def test_command_prints_every_bar(
    golden_of: Callable[..., GoldenFile],
    checkpoint_folder: Path,
    backend: Backend,
    tested: Callable[[str], Selftest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = tested("bfloat16")
    monkeypatch.setattr(selftest.Tester, "run", lambda _self: result)
    golden = golden_of("bfloat16")
    assert run(["selftest", str(golden.path), "--layers", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("✓ PASS  bfloat16: ")
    for label in ("faults caught", "culprit op right", "bug named right", "false alarms"):
        assert label in printed
    for gate in ("goldenctl, by budget", "cosine >= 0.99", "assert_close"):
        assert gate in printed
