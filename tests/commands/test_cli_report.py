"""The outputs that all commands with a report share, and ``goldenctl report`` itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ran import Call

FORMATS = {
    "json": "{", "html": "<!doctype html>", "junit": "<?xml", "markdown": "### ", "csv": "name,",
}  # fmt: skip
WRONG = "scale_1.02@layers.01.mlp.swiglu"


def outputs(folder: Path) -> list[str]:
    return [word for name in FORMATS for word in (f"--{name}", str(folder / f"r.{name}"))]


@pytest.fixture
def wrong(call: Call, golden: Path, tmp_path: Path, harness: Path) -> Path:
    """Return a run in which one op of layer 1 is wrong by 2 %."""
    out = tmp_path / "wrong.h5"
    assert call("replay", golden, out, "--inject", WRONG, "--layers", "0-1").code == 0
    return out


def test_diff_writes_every_format(call: Call, golden: Path, wrong: Path, tmp_path: Path) -> None:
    ran = call("diff", golden, wrong, "--quiet", *outputs(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    for name, start in FORMATS.items():
        assert (tmp_path / f"r.{name}").read_text(encoding="utf-8").startswith(start)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["command"] == "diff"
    assert report["pictures"][0]["name"].endswith("layers/01/mlp/swiglu")
    assert report["pictures"][0]["looks_like"][0].startswith("constant scale 1.0")


def test_report_renders_the_same_again_without_tensors(
    call: Call, golden: Path, wrong: Path, tmp_path: Path
) -> None:
    ran = call("diff", golden, wrong, *outputs(tmp_path))
    wrong.unlink()
    again = tmp_path / "again"
    again.mkdir()
    shown = call("report", tmp_path / "r.json", *outputs(again))
    assert (shown.code, shown.out) == (0, ran.out)
    for name in FORMATS:
        assert (again / f"r.{name}").read_bytes() == (tmp_path / f"r.{name}").read_bytes()


def test_only_and_worst(call: Call, golden: Path, wrong: Path) -> None:
    ran = call("diff", golden, wrong, "--only", "layers.01.mlp.swi*", "-v")
    assert ran.out.startswith("✗ FAIL") or "INJECTED" in ran.out.splitlines()[0]
    rows = [line for line in ran.out.splitlines() if line.startswith(("✓", "✗"))]
    assert [row.split()[1] for row in rows[1:]] == ["layers.01.mlp", "swiglu"]


def test_blame_writes_every_format(call: Call, golden: Path, tmp_path: Path) -> None:
    options = ("--layers", "1", "--inject", WRONG, "--quiet")
    ran = call("blame", golden, *options, *outputs(tmp_path))
    assert (ran.code, ran.out, ran.err) == (1, "", "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert [c["tap"] for c in report["findings"]["culprits"]] == ["swiglu"]
    assert report["findings"]["graft"]["wrong_after"] == 0
    assert report["run"]["path"] == ""
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "layers.01.mlp.swiglu (op swiglu)" in page
    assert "goldenctl blame" in page


def test_verify_writes_every_format(
    call: Call, checkpoint: Path, tmp_path: Path, harness: Path
) -> None:
    ran = call("verify", "--model-path", checkpoint, "--test-input", "Hi", *outputs(tmp_path))
    assert ran.code == 0
    assert json.loads((tmp_path / "r.json").read_text())["command"] == "verify"
    assert "</span>Pass</span>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_verify_takes_one_name_for_its_json(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    ran = call("verify", "--model-path", checkpoint, "--output", out, "--json", out)
    assert ran.code == 2
    assert "--output and --json are the same" in ran.line


def test_the_step_summary_is_written_by_itself(
    call: Call, golden: Path, replayed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert call("diff", golden, replayed, "--quiet").code == 0
    assert summary.read_text(encoding="utf-8").startswith("### ✅ PASS: goldenctl diff")


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_that_cannot_be_written_is_refused_before_anything_runs(
    call: Call, tmp_path: Path, name: str
) -> None:
    for command in (("diff", "no.h5", "no.h5"), ("blame", "no.h5"), ("report", "no.json")):
        ran = call(*command, f"--{name}", tmp_path / "none" / "r")
        assert ran.code == 2
        assert f"folder {tmp_path / 'none'} does not exist" in ran.line


def test_one_file_for_two_formats_is_refused(call: Call, tmp_path: Path) -> None:
    ran = call("report", "no.json", "--csv", tmp_path / "r", "--junit", tmp_path / "r")
    assert ran.code == 2
    assert "is given for two formats" in ran.line


def test_what_is_no_report_is_refused(call: Call, golden: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    (tmp_path / "text").write_text("hello")
    for file, code in ((golden, 2), (tmp_path / "text", 4)):
        ran = call("report", file, "--html", page)
        assert ran.code == code
        assert "not a report" in ran.line
    assert not page.exists()


def test_plot_of_a_golden_and_a_run(call: Call, golden: Path, wrong: Path, tmp_path: Path) -> None:
    ran = call("plot", golden, wrong, "--output", tmp_path / "figures")
    assert (ran.code, ran.err) == (0, "")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {
        "map.svg",
        "depth.svg",
        "times.svg",
        "worst-1-strips.svg",
        "worst-1-scatter.svg",
    } <= names
    assert "Where the error is: layers.01.mlp.swiglu" in ran.out
