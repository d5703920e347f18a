"""Tests the command blame on a real backend: what it finds, says, grafts and returns."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile

pytestmark = pytest.mark.usefixtures("backend")
Golden = Callable[..., GoldenFile]


def _blamed(
    golden: GoldenFile, capsys: pytest.CaptureFixture[str], *faults: str
) -> tuple[int, str]:
    arguments = ["blame", str(golden.path)]
    for fault in faults:
        arguments += ["--inject", fault]
    code = run(arguments)
    return code, capsys.readouterr().out


def _shape(text: str) -> list[str]:
    """The output without its numbers, which are another machine's, and without padding."""
    text = re.sub(r"\d\.\d+e[+-]\d+|inf", "E", text)
    text = re.sub(r"\b[\d.]+(e[+-]\d+)?×", "N×", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_whole_output(golden_of: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = _blamed(golden_of("float32"), capsys, "no_norm@layers.02.attention.q_norm")
    assert code == 1
    lines = _shape(printed)
    assert lines[0] == "INJECTED FAULTS: no_norm@layers.02.attention.q_norm"
    assert lines[1].endswith(" tensors are wrong; 1 op is wrong by itself")
    assert lines[2:7] == [
        "✗ culprit layers.02.attention.q_norm (rms_norm)",
        "100.0% of the error is explained by 'norm missing' or 'q/k norm after RoPE'",
        "this input cannot tell these apart; another prompt may",
        "",
        "sublayer isolated inherited chained growth part",
    ]
    assert lines[7] == "embedding E E E -"
    words = {line.split()[0]: line.split()[-1] for line in lines[7:18]}
    assert words["layers.01.mlp"] == "N×"
    assert words["layers.02.attention"] == "culprit"
    assert {words["layers.02.mlp"], words["lm_head"]} <= {"victim", "amplifier"}
    assert "culprit wrong though its input is right" in lines
    graft = " ".join(lines[lines.index("culprit wrong though its input is right") :])
    assert (
        "graft: the chain once more, with the golden's tensor in place of 1 culprit: "
        "0 wrong sublayers instead of "
    ) in graft


def test_no_culprit(golden_of: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = _blamed(golden_of("bfloat16"), capsys)
    assert code == 0
    assert printed.startswith("✓ no culprit: every op is right, given right inputs\n")
    assert "graft" not in printed


def test_several_culprits(golden_of: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    faults = ("gelu@layers.00.mlp", "theta_1e4@layers.03.attention.k_rope")
    code, printed = _blamed(golden_of("float32"), capsys, *faults)
    assert code == 1
    assert "✗ culprit layers.00.mlp.swiglu (swiglu)" in printed
    assert "explained by 'GELU for SiLU'" in printed
    assert "✗ culprit layers.03.attention.k_rope (rope)" in printed
    assert "explained by 'RoPE theta 1e4'" in printed
    assert "in place of 2 culprits" in " ".join(printed.split())


def test_missing_taps_say_what_to_record(
    golden_of: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = golden_of("float32", "budget", "sublayer")
    code, printed = _blamed(golden, capsys, "no_norm@layers.01.mlp")
    assert code == 1
    assert "✗ culprit layers.01.mlp.output" in printed
    assert "record with --taps op to find the op" in printed


def test_a_simulated_backend_is_refused(
    golden_of: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["blame", str(golden_of("float32").path), "--backend", "simulated"]) == 2
    assert "a simulated backend has no culprits" in capsys.readouterr().err
