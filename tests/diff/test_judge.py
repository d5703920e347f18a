"""Tests of the verdict on pairs of files: what passes, and all that must not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_pairs import BAD, Bad, crashed
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import ATTENTION, Q_PROJ, STEP, SUBLAYERS, Pair, float_type

from goldenctl.diff.further import NOT_OF_TOLERANCE
from goldenctl.diff.judge import compare
from goldenctl.diff.rejudge import rejudge
from goldenctl.diff.tolerance import CLASSIC, Limits, Policy, default_policy
from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.file import open_golden
from goldenctl.records.report import Report

HEAD = f"{STEP}/lm_head/output"
EMBEDDING = f"{STEP}/embedding/output"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("policy", [default_policy(), CLASSIC], ids=["default", "classic"])
def test_an_equal_run_passes(tmp_path: Path, dtype: str, policy: Policy) -> None:
    report = Pair.of(tmp_path, dtype).compare(policy)
    assert (report.ok, report.exit_code, report.first_wrong) == (True, 0, None)
    assert {t.state for t in report.tensors} == {"passed"}
    assert [s.name for s in report.sublayers] == list(SUBLAYERS)
    assert report.sublayers[-1].tensors[0].logits is not None


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_wrong_run_fails_where_it_goes_wrong(tmp_path: Path, bad: Bad) -> None:
    pair = Pair.of(tmp_path)
    bad.bend(pair)
    report = pair.compare()
    assert (report.ok, report.exit_code) == (False, 1)
    first = report.first_wrong
    assert first is not None
    assert (first.name, first.state, first.message) == (bad.name, bad.state, bad.message)
    assert not first.share <= 1.0


STRUCTURAL = [name for name in BAD if name not in ("a scale of 1.02", "one element")]


@pytest.mark.parametrize("name", [n for n in STRUCTURAL if "embedding" not in n])
def test_no_policy_forgives_what_is_structurally_wrong(tmp_path: Path, name: str) -> None:
    """Limits as wide as they go: NaN, shapes, missing tensors and crashes still fail."""
    pair = Pair.of(tmp_path)
    BAD[name].bend(pair)
    wide = Policy("wide", {"*/*": Limits(rel_l2=1e30)})
    assert not pair.compare(wide).ok


def test_matching_infinities_pass(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    for arrays in (pair.golden_arrays, pair.run_arrays):
        arrays[Q_PROJ].flat[5] = -math.inf
    assert pair.compare().ok


def test_the_worst_element_is_named_by_its_indices(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.run_arrays[Q_PROJ][0, 3, 1, 2] = 50.0
    first = pair.compare().first_wrong
    assert first is not None
    assert first.worst == "batch 0, token 3, head 1, head_dim 2"


def test_a_crash_says_so_on_every_tensor_of_its_sublayer(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    crashed(pair)
    by_name = {s.name: s for s in pair.compare().sublayers}
    assert {t.state for t in by_name[ATTENTION].tensors} == {"crashed"}
    assert by_name[ATTENTION].state == "crashed"
    assert by_name[SUBLAYERS[0]].state == "passed"


def test_fused_taps_are_listed_and_not_judged(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["not_computed"] = ["scores"]
    del pair.run_arrays[f"{ATTENTION}/scores"]
    report = pair.compare()
    assert report.ok
    assert [t.tap for t in report.tensors if t.state == "not_computed"] == ["scores"]
    assert len(report.compared) == len(report.tensors) - 1


def test_a_run_that_computed_nothing_fails(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["not_computed"] = [n.rpartition("/")[2] for n in pair.run_arrays]
    pair.run_arrays.clear()
    report = pair.compare()
    assert (report.compared, report.ok, report.exit_code) == ([], False, 1)


def test_a_run_that_replayed_nothing_fails(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["sublayers"] = []
    pair.run_arrays.clear()
    assert not pair.compare().ok


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sublayers", ["cases/default/steps/00/no_such"], "no_such, which"),
        ("sublayers", "embedding", r"Expected `array \| null`, got `str` - at `\$.sublayers`"),
        ("not_computed", [1], r"got `int` - at `\$.not_computed\[0\]`"),
        ("mode", 3, r"got `int` - at `\$.mode`"),
        ("golden", "here", r"got `str` - at `\$.golden`"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe[key] = value
    with pytest.raises(DamagedError, match=said):
        pair.compare()


def test_a_crash_is_not_hidden_by_what_is_not_computed(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    crashed(pair)
    pair.recipe["not_computed"] = [n.rpartition("/")[2] for n in pair.run_arrays]
    assert not pair.compare().ok


def test_only_what_was_replayed_is_compared(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["sublayers"] = [ATTENTION]
    for name in (EMBEDDING, HEAD):
        del pair.run_arrays[name]
    report = pair.compare()
    assert report.ok
    assert [s.name for s in report.sublayers] == [ATTENTION]


def test_outputs_of_a_sublayer_that_was_not_replayed_are_extra(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["sublayers"] = [ATTENTION]
    report = pair.compare()
    assert {t.name for t in report.extra} == {EMBEDDING, HEAD}
    assert not report.ok


def test_bytes_changed_after_the_replay_are_refused(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    golden, run = pair.write()
    with pair.run_path.open("r+b") as file:
        file.seek(run.tensors[Q_PROJ].offset)
        file.write(b"\1")
    with pytest.raises(DamagedError, match="q_proj does not match its digest"):
        compare(golden, run, default_policy())


def test_a_run_of_another_golden_is_refused(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["golden"] = {"path": "other.h5", "content_digest": "0" * 64}
    with pytest.raises(DamagedError, match=r"was replayed from another golden \(other.h5\)"):
        pair.compare()


def test_a_run_in_place_of_the_golden_is_refused(tmp_path: Path) -> None:
    golden, run = Pair.of(tmp_path).write()
    with pytest.raises(UsageError, match="expected a golden as the first file, got a run"):
        compare(run, golden, default_policy())


def test_two_goldens_can_be_compared(tmp_path: Path) -> None:
    golden, _ = Pair.of(tmp_path).write()
    assert compare(golden, open_golden(golden.path), default_policy()).ok


@pytest.mark.parametrize(("golden", "run"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_another_dtype_is_judged_as_the_coarser(tmp_path: Path, golden: str, run: str) -> None:
    pair = Pair.of(tmp_path, golden)
    for name, array in pair.golden_arrays.items():
        exact = array.astype(np.float32)
        noise = 0.0 if name == EMBEDDING else 0.004  # about half a bfloat16 epsilon
        pair.run_arrays[name] = (exact * (1 + noise * np.sign(exact))).astype(float_type(run))
    assert pair.compare().ok
    pair.run_arrays[Q_PROJ] = (pair.run_arrays[Q_PROJ] * 1.1).astype(float_type(run))
    assert not pair.compare().ok


def test_rejudge_agrees_on_a_coarser_run(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path, "float32")
    pair.run_arrays = {n: a.astype(float_type("bfloat16")) for n, a in pair.run_arrays.items()}
    report = pair.compare()
    assert rejudge(report, default_policy()) == report


@pytest.mark.parametrize("name", ["equal", *BAD])
@pytest.mark.parametrize("policy", [default_policy(), CLASSIC], ids=["default", "classic"])
def test_rejudge_gives_what_compare_gives(tmp_path: Path, name: str, policy: Policy) -> None:
    pair = Pair.of(tmp_path)
    if name != "equal":
        BAD[name].bend(pair)
    other = CLASSIC if policy.budget else default_policy()
    again = rejudge(pair.compare(other), policy)
    direct = pair.compare(policy)
    assert again.ok == direct.ok
    assert told(again) == told(direct)


def told(report: Report) -> list[str]:
    """What is judged of each tensor by limits, as text, so that a NaN equals itself. What is
    exact needs the tensors."""
    return [
        repr((t.name, t.state, t.share, [c for c in t.checks if c.metric not in NOT_OF_TOLERANCE]))
        for t in report.tensors
    ]


@settings(deadline=None, max_examples=20)
@given(st.floats(-18, 2), st.floats(0, 3))
def test_a_larger_error_never_passes_where_a_smaller_fails(
    tmp_path_factory: pytest.TempPathFactory, size: float, growth: float
) -> None:
    def passes(error: float) -> bool:
        pair = Pair.of(tmp_path_factory.getbasetemp(), "float64")
        exact = pair.golden_arrays[Q_PROJ]
        noise = np.random.default_rng(3).standard_normal(exact.shape)
        pair.run_arrays[Q_PROJ] = exact + error * noise
        return pair.compare().ok

    assert passes(10**size) or not passes(10 ** (size + growth))


@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize(("error", "ok"), [(0.01, True), (0.02, True), (0.2, False)])
def test_a_recorded_budget_comes_before_the_table(
    tmp_path: Path, truth: bool, error: float, ok: bool
) -> None:
    """One row off by far more than the table allows, within or beyond its budget."""
    pair = Pair.of(tmp_path)
    pair.add_budget(0.01, truth=truth)
    pair.run_arrays[Q_PROJ][0, 2, 1] += np.float32(error)
    report = pair.compare()
    judged = next(t for t in report.tensors if t.name == Q_PROJ)
    assert (judged.ok, judged.rule) == (ok, "truth" if truth else "budget")
    assert judged.worst == "batch 0, token 2, head 1"
    assert rejudge(report, default_policy()) == report
    assert not pair.compare(Policy("table", default_policy().table)).ok
    assert report.ok == ok


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_budget_does_not_excuse_what_is_not_finite(tmp_path: Path, value: float) -> None:
    pair = Pair.of(tmp_path)
    pair.add_budget(1e9, truth=False)
    pair.run_arrays[Q_PROJ].flat[3] = value
    report = pair.compare()
    assert report.first_wrong is not None
    assert report.first_wrong.worst == "batch 0, token 0, head 0, head_dim 3"


def test_a_run_in_another_dtype_is_judged_by_the_table(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.add_budget(0.0, truth=False)
    pair.run_arrays[Q_PROJ] = pair.run_arrays[Q_PROJ].astype(float_type("bfloat16"))
    judged = next(t for t in pair.compare().tensors if t.name == Q_PROJ)
    assert (judged.ok, judged.rule) == (True, "default")


@pytest.mark.parametrize(
    ("recipe", "state"),
    [
        ({"dtype": "float32"}, "dtype_mismatch"),
        ({"dtype": "bfloat16"}, "passed"),
        ({"dtype": "float32", "backend": {"name": "import"}}, "passed"),
    ],
    ids=["replayed", "replayed in it", "a dump"],
)
def test_a_tensor_is_in_the_dtype_that_its_run_states(
    tmp_path: Path, recipe: dict[str, Any], state: str
) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe.update(recipe)
    pair.run_arrays[Q_PROJ] = pair.run_arrays[Q_PROJ].astype(float_type("bfloat16"))
    judged = next(t for t in pair.compare().tensors if t.name == Q_PROJ)
    assert judged.state == state
    if state == "dtype_mismatch":
        assert judged.message == "expected dtype float32, got bfloat16"


def test_what_a_run_does_not_have_of_its_golden_is_counted(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.recipe["sublayers"] = [ATTENTION]
    pair.run_arrays = {n: a for n, a in pair.run_arrays.items() if n.startswith(ATTENTION)}
    report = pair.compare()
    assert (report.ok, report.left_out) == (True, 2)


def test_simulation_and_faults_are_carried_over(tmp_path: Path) -> None:
    pair = Pair.of(tmp_path)
    pair.simulated = True
    pair.recipe["faults"] = ["rope_interleaved"]
    report = pair.compare()
    assert (report.simulated, report.faults) == (True, ("rope_interleaved",))
    assert report.run.recipe["faults"] == ["rope_interleaved"]
    assert report.golden.kind == "golden"


def test_progress_is_told_of_every_sublayer(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    compare(*Pair.of(tmp_path).write(), default_policy(), progress=lambda *args: said.append(args))
    assert said == [(1, 3, "embedding"), (2, 3, "layers.00.attention"), (3, 3, "lm_head")]
