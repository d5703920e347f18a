"""Tests that a fault which changes nothing is refused, and that a guess that fails is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile
from goldenctl.records.findings import EXPLAINS, Cause, Culprit, explanation
from goldenctl.reference.patch import Emulator
from tests.verdict.conftest import Bench, record_tiny

pytestmark = pytest.mark.usefixtures("backend")
Q_ROPE = "layers.01.attention.q_rope"


@pytest.fixture(scope="module")
def one_token(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    """At position 0 every theta gives the same tables, and one token sees itself alone."""
    path = tmp_path_factory.mktemp("one") / "g.h5"
    return record_tiny(checkpoint_folder, path, tokens=(7,))


@pytest.mark.parametrize("fault", [f"rope_half@{Q_ROPE}", "theta_1e4", "mask_minus_1@layers.02"])
@pytest.mark.parametrize("command", ["replay", "blame"])
def test_a_fault_without_effect_is_refused(
    one_token: GoldenFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    fault: str,
) -> None:
    files = [str(one_token.path), *([str(tmp_path / "r.h5")] if command == "replay" else [])]
    assert run([command, *files, "--inject", fault, "--inject", "scale_2@layers.00.mlp"]) == 2
    printed = capsys.readouterr()
    assert "INJECTED" not in printed.out
    assert f"--inject {fault}: changes no bit of what it is put into" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "r.h5").exists()


def test_two_faults_of_one_table_are_named(
    golden_of: Callable[..., GoldenFile], capsys: pytest.CaptureFixture[str]
) -> None:
    faults = (f"theta_1e4@{Q_ROPE}", f"scale_1.02@{Q_ROPE}")
    arguments = [word for fault in faults for word in ("--inject", fault)]
    assert run(["blame", str(golden_of("float32").path), *arguments]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"INJECTED FAULTS: {', '.join(faults)}" in printed
    assert "explained by 'RoPE theta 1e4 and output scaled by 1.02'" in printed


def test_a_guess_that_cannot_be_computed_is_skipped_and_said_with_v(
    golden_of: Callable[..., GoldenFile],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Emulator.output

    def output(self: Emulator, *where: object) -> object:
        if "theta" in repr(where[-1]):
            message = "no such table\nand more"
            raise ValueError(message)
        return right(self, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(Emulator, "output", output)
    golden = str(golden_of("float32").path)
    for option, said in (("-v", True), ("--worst=1", False)):
        assert run(["blame", golden, option, "--inject", f"rope_interleaved@{Q_ROPE}"]) == 1
        printed = capsys.readouterr().out
        assert "explained by 'interleaved RoPE'" in printed
        assert ("not tried: theta_1e4: ValueError: no such table\n" in printed) is said


def test_what_explains_a_part_is_no_cause(bench_of: Callable[[str], Bench]) -> None:
    """In bfloat16 a small error is little more than rounding: much reproduces it badly."""
    bench = bench_of("bfloat16")
    place = "layers.01.attention.o_proj"
    e = np.array(bench.expected(place)).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(e.shape) * np.abs(e)
    for size in (0.004, 0.01, 0.02):
        actual = (e * 1.012 + size * noise).astype(bench.expected(place).dtype)
        diagnosis = bench.diagnose(place, actual)
        assert all(cause.explained >= EXPLAINS for cause in diagnosis.causes)
        assert not diagnosis.causes or diagnosis.nearest is None


def _cause(explained: float) -> Cause:
    return Cause(title="GELU for SiLU", faults=("gelu",), explained=explained, residual=0.1)


def test_words_for_what_is_nearest() -> None:
    half = explanation((), _cause(0.439), ["sign flips (3 of 9)"])
    assert half == (
        "not explained by a known fault; most like 'GELU for SiLU' (explains 43%); "
        "the error looks like: sign flips (3 of 9)"
    )
    assert "(explains 99%)" in explanation((), _cause(0.99999), [])
    assert explanation((_cause(0.9),), None, []).startswith("90.0% of the error is explained by")


def test_a_stored_cause_that_explains_half_is_none() -> None:
    """Reports were written with such causes before."""
    place = {"name": "a/b", "sublayer": "a", "tap": "b", "op": "swiglu", "diagnosed": True}
    culprit = Culprit(**place, causes=(_cause(0.54),))  # type: ignore[arg-type]
    assert culprit.named == ()
    assert culprit.summary.startswith(
        "not explained by a known fault; most like 'GELU for SiLU' (explains 54%);"
    )
