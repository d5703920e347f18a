"""Tests the rule for a reference that is not finite: not judged, counted, never passed over."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from goldenctl.diff.finite import NO_REFERENCE, compared
from goldenctl.diff.illustrate import illustrate
from goldenctl.diff.padding import Padding
from goldenctl.diff.rejudge import rejudge
from goldenctl.diff.tolerance import CLASSIC, default_policy
from goldenctl.records.report import Report, TensorResult
from goldenctl.report import csv as csv_report
from goldenctl.report import html, junit, markdown
from goldenctl.report.console import print_report
from tests.diff.pairs import ATTENTION, Q_PROJ, STEP, Pair

HEAD = f"{STEP}/lm_head/output"
OUTPUT = f"{ATTENTION}/output"


def _of(report: Report, name: str) -> TensorResult:
    return next(t for t in report.tensors if t.name == name)


def _both(pair: Pair, name: str, index: object, value: float) -> None:
    for arrays in (pair.golden_arrays, pair.run_arrays):
        arrays[name][index] = value


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.of(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_equal_is_not_judged(pair: Pair, value: float) -> None:
    _both(pair, Q_PROJ, (0, 1, 1, 2), value)
    report = pair.compare()
    found = _of(report, Q_PROJ)
    assert (report.ok, found.state, found.not_judged_rows) == (True, "passed", 1)
    assert found.metrics is not None
    assert found.metrics.compared == 28


def test_other_rows_are_judged(pair: Pair) -> None:
    _both(pair, Q_PROJ, (0, 1, 1, 2), math.nan)
    pair.run_arrays[Q_PROJ][0, 3, 0, 1] += 0.1
    found = _of(pair.compare(), Q_PROJ)
    assert (found.state, found.not_judged_rows) == ("failed", 1)
    assert "token 3, head 0" in found.worst


def test_finite_elements_of_such_a_row_are_not_judged(pair: Pair) -> None:
    _both(pair, Q_PROJ, (0, 1, 1, 2), math.nan)
    pair.run_arrays[Q_PROJ][0, 1, 1, 0] += 10
    assert pair.compare().ok


def test_a_whole_tensor_has_a_state_of_its_own(pair: Pair) -> None:
    _both(pair, Q_PROJ, ..., math.nan)
    report = pair.compare()
    found = _of(report, Q_PROJ)
    assert (report.ok, found.state, found.message) == (True, "not_judged", NO_REFERENCE)
    assert found.not_judged_rows == 8
    assert found not in report.compared


def test_a_run_that_is_equal_fails_nowhere(pair: Pair) -> None:
    for name in pair.golden_arrays:
        _both(pair, name, ..., math.nan)
    report = pair.compare()
    assert report.ok
    assert {t.state for t in report.tensors} == {"not_judged"}


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize(
    ("index", "value"),
    [((0, 0, 0, 0), math.nan), ((0, 1, 1, 2), math.inf), ((0, 1, 1, 0), math.nan)],
    ids=["where the golden is finite", "another kind", "in the same row"],
)
def test_elsewhere_it_fails(pair: Pair, budget: bool, index: tuple[int, ...], value: float) -> None:
    if budget:
        pair.add_budget(1e-3, truth=False)
    _both(pair, Q_PROJ, (0, 1, 1, 2), math.nan)
    pair.run_arrays[Q_PROJ][index] = value
    report = pair.compare()
    assert _of(report, Q_PROJ).state == "failed"
    pictures = illustrate(report, *pair.write()).pictures
    said = next(p.looks_like for p in pictures if p.name == Q_PROJ)
    assert said[0].startswith("1 of 32 elements are ")


@pytest.mark.parametrize("truth_is_finite", [True, False])
def test_an_engine_may_be_finite_where_the_truth_is(pair: Pair, truth_is_finite: bool) -> None:
    """Where the truth is not finite either, or none is known, it may not."""
    pair.add_budget(1e-3, truth=False)
    budget = pair.golden_arrays[f"{ATTENTION}/budget/q_proj"]
    budget[:, 0, 1, 1, :2] = math.inf  # the distance of NaN from any truth
    budget[:, 0, 1, 1, 2:] = 1e-3 if truth_is_finite else math.nan
    pair.golden_arrays[Q_PROJ][0, 1, 1, 2] = math.nan
    found = _of(pair.compare(), Q_PROJ)
    assert found.state == ("passed" if truth_is_finite else "failed")
    assert found.only_reference_rows == truth_is_finite
    without = Pair.of(pair.folder)
    without.golden_arrays[Q_PROJ][0, 1, 1, 2] = math.nan
    assert not without.compare().ok


def test_budgets_of_other_rows_hold(pair: Pair) -> None:
    """A budget that is not finite in one row does not spoil those of the others."""
    pair.add_budget(1e-3, truth=True)
    for folder in ("budget", "oracle"):
        pair.golden_arrays[f"{ATTENTION}/{folder}/q_proj"][:, 0, 1, 1] = math.nan
    _both(pair, Q_PROJ, (0, 1, 1), math.nan)
    pair.run_arrays[Q_PROJ][0, 2] += 1e-3
    assert _of(pair.compare(), Q_PROJ).share < 1.0
    pair.run_arrays[Q_PROJ][0, 2] += 1.0
    report = pair.compare()
    assert _of(report, Q_PROJ).state == "failed"
    assert illustrate(report, *pair.write()).pictures


def test_another_policy_keeps_the_state(pair: Pair) -> None:
    _both(pair, Q_PROJ, ..., math.nan)
    _both(pair, OUTPUT, (0, 0, 0), math.inf)
    report = rejudge(pair.compare(), CLASSIC)
    assert (report.ok, _of(report, Q_PROJ).state) == (True, "not_judged")
    assert rejudge(report, default_policy()).ok


def test_every_format_says_so(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    _both(pair, HEAD, ..., math.nan)
    _both(pair, OUTPUT, (0, 0, 0), math.inf)
    golden, run = pair.write()
    report = illustrate(pair.compare(), golden, run)
    print_report(report)
    printed = " ".join(capsys.readouterr().out.split())
    assert "PASS" in printed
    assert "compared: the logits (lm_head.output), layers.00.attention.output in part;" in printed
    said = "not judged: 1 tensor and 1 row of 1 more, where the golden itself is NaN or Inf"
    assert said in printed
    assert said[1:] in html.render(report)
    assert said[12:] in markdown.render(report)
    document = junit.render(report)
    assert f'skipped message="{NO_REFERENCE}"' in document
    assert f"1 row not judged: {NO_REFERENCE}" in document
    rows = list(csv.DictReader(io.StringIO(csv_report.render(report))))
    assert [r["not_judged_rows"] for r in rows if r["tap"] == "output"] == ["0", "1", "4"]
    assert [r["state"] for r in rows][-1] == "not_judged"


def test_masked_probabilities_may_be_zero(pair: Pair) -> None:
    """An engine that writes only what is visible leaves zero where PyTorch's NaN row goes on."""
    name = f"{ATTENTION}/scores"  # of the shape of probabilities
    expected = pair.golden_arrays[name].copy()
    expected[0, 1, 1] = math.nan
    actual = expected.copy()
    actual[0, 1, 1, 2:] = 0.0
    found = compared(actual, expected, Padding(), op="causal_softmax")
    assert (found.finite, found.not_judged, found.only_reference) == (True, 1, 1)
    assert not compared(actual, expected, Padding(), op="matmul_qk").finite
    actual[0, 1, 1, 1] = 0.0
    assert not compared(actual, expected, Padding(), op="causal_softmax").finite
    assert np.isnan(expected).sum() == 4
