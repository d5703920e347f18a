"""``goldenctl diff``: every option and exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ran import Call

from goldenctl.golden.file import open_golden

WRONG = "scale_1.02@layers.01.mlp.swiglu"


@pytest.fixture
def wrong(call: Call, golden: Path, tmp_path: Path, harness: Path) -> Path:
    """Return a run in which one op of layer 1 is wrong by 2 %."""
    out = tmp_path / "wrong.h5"
    assert call("replay", golden, out, "--inject", WRONG, "--layers", "0-1").code == 0
    return out


def test_pass(call: Call, golden: Path, replayed: Path) -> None:
    ran = call("diff", golden, replayed)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("✓ PASS  99 tensors of 11 sublayers within tolerance")


def test_fail_says_where_first(call: Call, golden: Path, wrong: Path) -> None:
    ran = call("diff", golden, wrong)
    assert ran.code == 1
    assert "first wrong: layers.01.mlp.swiglu (op swiglu)" in ran.out


def test_quiet(call: Call, golden: Path, replayed: Path, wrong: Path) -> None:
    for run, code in ((replayed, 0), (wrong, 1)):
        ran = call("diff", golden, run, "--quiet")
        assert (ran.code, ran.out, ran.err) == (code, "", "")


def test_verbose_shows_every_tensor(call: Call, golden: Path, replayed: Path) -> None:
    assert "gate_proj" not in call("diff", golden, replayed).out
    shown = call("diff", golden, replayed, "-v").out
    for info in open_golden(replayed).tensors.values():
        assert info.tap in shown


@pytest.mark.parametrize(
    ("only", "hint"),
    [("q_roop", "did you mean 'q_rope'?"), ("nothing*", "goldenctl inspect lists them")],
)
def test_only_that_matches_nothing_is_said_before_anything_is_written(
    call: Call, golden: Path, replayed: Path, tmp_path: Path, only: str, hint: str
) -> None:
    report, page = tmp_path / "r.json", tmp_path / "r.html"
    assert call("diff", golden, replayed, "--json", report).code == 0
    for sources in ((golden, replayed), (report,)):
        ran = call("diff", *sources, "--only", only, "--html", page)
        assert (ran.code, ran.out) == (2, "")
        assert ran.line == f"goldenctl: --only {only}: matches no tensor; {hint}"
    assert not page.exists()


def test_worst(call: Call, golden: Path, wrong: Path) -> None:
    rows = call("diff", golden, wrong, "--worst", "1").out.rpartition("cosine\n")[2].splitlines()
    assert len(rows) == 1
    assert rows[0].startswith("✗  layers.01.mlp (swiglu)")


@pytest.mark.parametrize(
    ("toml", "code"), [("rel_l2 = 0.5", 0), ("rel_l2 = 0.001", 1), ("cosine = 0.999", 0)]
)
def test_tolerance_file(
    call: Call, golden: Path, wrong: Path, tmp_path: Path, toml: str, code: int
) -> None:
    table = tmp_path / "own.toml"
    table.write_text(f'["*/*"]\n{toml}\n')
    assert call("diff", golden, wrong, "--tolerance", table).code == code


def test_json_and_judging_it_again(call: Call, golden: Path, wrong: Path, tmp_path: Path) -> None:
    report, again = tmp_path / "report.json", tmp_path / "again.json"
    assert call("diff", golden, wrong, "--json", report).code == 1
    data = json.loads(report.read_text())
    assert all(layer["input_shape"] == [1, 5, 64] for layer in data["layer_results"])
    assert (data["report_version"], data["ok"], data["overall_success"]) == (2, False, False)
    assert data["first_wrong"] == "cases/random-0/steps/00/layers/01/mlp/swiglu"
    assert data["faults"] == [WRONG]
    assert data["layers_failed"] == 1
    wrong.unlink()  # the tensors are not needed any more
    assert call("diff", report).code == 1
    generous = tmp_path / "t.toml"
    generous.write_text('["*/*"]\nrel_l2 = 0.5\n')
    judged = call("diff", report, "--tolerance", generous, "--json", again)
    assert judged.code == 0
    assert json.loads(again.read_text())["ok"] is True


def test_classic_does_not_see_small_noise(
    call: Call, golden: Path, tmp_path: Path, harness: Path
) -> None:
    """What the default table is for: one part in ten thousand passes the classic rule."""
    out, table = tmp_path / "r.h5", {"default": 1, "classic": 0}
    arguments = ("--backend", "simulated", "--noise", "0.0001", "--layers", "0")
    assert call("replay", golden, out, *arguments).code == 0
    for tolerance, code in table.items():
        assert call("diff", golden, out, "--tolerance", tolerance).code == code


def test_missing_sublayer_fails(call: Call, golden: Path, replayed: Path, tmp_path: Path) -> None:
    """A second golden that lacks what the first has, as the run."""
    model = open_golden(golden).recipe["model"]["path"]
    out = tmp_path / "fewer.h5"
    record = ("record", model, out, "--random-tokens", "5", "--logits", "none")
    assert call(*record).code == 0
    ran = call("diff", golden, out)
    assert ran.code == 1
    assert "first wrong: lm_head.output" in ran.out


def test_changed_bytes_are_damage(call: Call, golden: Path, replayed: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.h5"
    shutil.copy(replayed, out)
    info = next(i for n, i in open_golden(out).tensors.items() if n.endswith("01/mlp/up_proj"))
    with out.open("r+b") as file:
        file.seek(info.offset)
        file.write(np.float32(np.nan).tobytes())
    ran = call("diff", golden, out)
    assert ran.code == 4
    assert f"{info.name} does not match its digest" in ran.line


def test_run_of_another_golden_is_refused(
    call: Call, checkpoint: Path, replayed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1").code == 0
    ran = call("diff", out, replayed)
    assert ran.code == 4
    assert "was replayed from another golden" in ran.line
