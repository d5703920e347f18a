"""Tests of two runs of one golden held against each other, such as of two devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pairs import ATTENTION, Pair

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.records.words import sides_of
from goldenctl.report.commands import commands


def two_runs(folder: Path, **second: Any) -> tuple[GoldenFile, GoldenFile]:
    """Two runs of one golden; ``second`` is what the recipe of the second says otherwise."""
    pair = Pair.of(folder)
    pair.write()
    first = pair.run_path.rename(folder / "first.h5")
    pair.recipe.update(second)
    return open_golden(first), pair.write()[1]


def test_two_runs_of_one_golden_can_be_compared(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path, faults=["no_rope"])
    report = compare(first, second, default_policy())
    assert (report.ok, len(report.compared), report.faults) == (True, 6, ("no_rope",))
    assert {t.rule for t in report.compared} == {"default"}
    assert sides_of(report) == ("first", "second")
    assert [c.text.split()[1] for c in commands(report)] == ["diff"]


def test_a_sublayer_that_the_first_run_lacks_or_crashed_in_does_not_pass(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.failures[ATTENTION] = {"reason": "crash", "message": "SIGSEGV"}
    pair.write()
    first = pair.run_path.rename(tmp_path / "first.h5")
    pair.failures.clear()
    report = compare(open_golden(first), pair.write()[1], default_policy())
    assert [s.state for s in report.sublayers] == ["passed", "crashed", "passed"]
    assert not report.ok


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"mode": "op"}, UsageError, r"run\.h5: was replayed in mode op, .*first\.h5 in sublayer"),
        (
            {"golden": {"path": "x.h5", "content_digest": "0" * 64}},
            DamagedError,
            r"run\.h5: was replayed from another golden than .*first\.h5",
        ),
    ],
    ids=["mode", "golden"],
)
def test_two_runs_that_are_no_pair(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        compare(*two_runs(tmp_path, **changes), default_policy())


def test_two_runs_of_padded_batches_are_compared_with_the_golden(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["cases"] = [{"name": "default", "padding": [0, 2]}]
    _, run = pair.write()
    with pytest.raises(UsageError, match="a run does not tell which rows are padding"):
        compare(run, run, default_policy())
