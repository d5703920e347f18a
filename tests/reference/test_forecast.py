"""Tests what a recording says of the oracle's cost before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.commands.record import Compute, prepare
from goldenctl.golden.selection import Selection
from goldenctl.model.inputs import Inputs
from goldenctl.model.synth import synth
from goldenctl.reference.forecast import oracle_seconds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth("tiny", tmp_path_factory.mktemp("model") / "tiny", 0)


def _seconds(folder: Path, tokens: int, *budget_dtypes: str) -> float:
    selection = Selection(oracle="budget", budget_dtypes=budget_dtypes)
    inputs = Inputs(random_tokens=tokens)
    return oracle_seconds(prepare(folder, inputs, selection, Compute()))


def test_more_work_takes_longer(checkpoint: Path) -> None:
    one, many = _seconds(checkpoint, 8), _seconds(checkpoint, 64)
    assert 0 < one < many < 8 * one  # some of it is there for any number of tokens
    assert _seconds(checkpoint, 8, "bfloat16") == pytest.approx(2 * one)


@pytest.mark.parametrize(
    ("oracle", "said"),
    [((), "without --oracle a run is held to a table"), (("--oracle",), "of which the oracle")],
)
def test_record_says_what_the_oracle_costs(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    oracle: tuple[str, ...],
    said: str,
) -> None:
    words = ["record", str(checkpoint), str(tmp_path / "g.h5"), "--token-ids", "1,2,3"]
    assert run([*words, "--taps", "sublayer", *oracle]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith(said))
    assert line.split("about ")[1].split()[1] in ("µs", "ms", "s", "ms,", "s,")
