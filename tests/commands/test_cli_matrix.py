"""``goldenctl diff`` of several runs: dtypes side by side, and the times of whole steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ran import Call

from goldenctl.golden.file import open_golden
from goldenctl.records.units import per_second


@pytest.fixture
def matrix(call: Call, checkpoint: Path, tmp_path: Path) -> list[Path]:
    """Return the golden's siblings in bfloat16 and float16, of the same inputs."""
    made = []
    for dtype in ("bfloat16", "float16"):
        path = tmp_path / f"{dtype}.h5"
        inputs = ("--random-tokens", "5", "--dtype", dtype)
        assert call("record", checkpoint, path, *inputs).code == 0
        made.append(path)
    return made


def simulated(call: Call, golden: Path, path: Path, *options: str) -> Path:
    assert call("replay", golden, path, "--backend", "simulated", *options).code == 0
    return path


def test_side_by_side(call: Call, golden: Path, tmp_path: Path) -> None:
    """One column for each run, and the exit code of the worst."""
    runs = [
        simulated(call, golden, tmp_path / "b.h5", "--dtype", "bfloat16", "--noise", "0"),
        simulated(call, golden, tmp_path / "f.h5", "--noise", "0"),
        simulated(call, golden, tmp_path / "h.h5", "--dtype", "float16", "--noise", "0.5"),
    ]
    out = tmp_path / "m.json"
    ran = call("diff", golden, *runs, "--json", out)
    assert ran.code == 1
    lines = [line.rstrip() for line in ran.out.splitlines()]
    assert lines[0].startswith("✓ bfloat16: 99 tensors, at most ")
    assert lines[2] == (
        "✓ float32: 99 tensors, at most 0% of tolerance used (mode op+sublayer, by default)"
    )
    wrong = "98 of 99 tensors are wrong, first layers.00.attention.input_layernorm"
    assert lines[4].startswith(f"✗ float16: {wrong}")
    assert lines[7].split() == ["sublayer", "bfloat16", "rel", "L2", "float32", "rel", "L2",
                                "float16", "rel", "L2"]  # fmt: skip
    assert sum(line.startswith(("✓  ", "✗  ")) for line in lines) == 11
    report = json.loads(out.read_text())
    assert not report["ok"]
    assert [(r["label"], r["ok"]) for r in report["reports"]] == [
        ("bfloat16", True),
        ("float32", True),
        ("float16", False),
    ]
    assert call("diff", golden, *runs[:2], "-q").out == ""
    assert call("diff", golden, *runs[:2]).code == 0


def test_side_by_side_shows_what_each_run_alone_does(
    call: Call, golden: Path, tmp_path: Path
) -> None:
    """Its banners under its line, and of each sublayer the same tensor, named."""
    good = simulated(call, golden, tmp_path / "good.h5", "--noise", "0")
    bad = tmp_path / "bad.h5"
    fault = "mask_plus_1@layers.01"
    assert call("replay", golden, bad, "--backend", "torch", "--inject", fault).code == 0
    ran = call("diff", golden, good, bad)
    lines = [line.rstrip() for line in ran.out.splitlines()]
    assert lines[1] == "    SIMULATED: no engine computed these outputs, noise 0"
    assert f"    INJECTED FAULTS: {fault}" in lines
    alone = call("diff", golden, bad).out.splitlines()
    row = next(line.split() for line in alone if "layers.01.attention (probs)" in line)
    both = next(line.split() for line in lines if line.startswith("✗  layers.01.attention (probs)"))
    assert both[-2:] == row[3:5]


def test_goldens_are_chains(call: Call, golden: Path, matrix: list[Path]) -> None:
    ran = call("diff", golden, *matrix)
    assert ran.code in (0, 1)
    assert ran.out.count("(mode chain, by default)") == 2


def test_runs_of_one_dtype_have_their_files_names(call: Call, golden: Path, tmp_path: Path) -> None:
    runs = [
        simulated(call, golden, tmp_path / f"{name}.h5", "--noise", "0") for name in ("old", "new")
    ]
    ran = call("diff", golden, *runs)
    assert ran.out.startswith("✓ old: ")
    assert "✓ new: " in ran.out


def test_what_is_of_one_run(call: Call, golden: Path, tmp_path: Path) -> None:
    run = simulated(call, golden, tmp_path / "r.h5")
    stored = tmp_path / "m.json"
    call("diff", golden, run, run, "--json", stored)
    for option in (("--only", "q_proj"), ("--worst", 3), ("-v",)):
        for command in (("diff", golden, run, run), ("diff", stored), ("report", stored)):
            ran = call(*command, *option)
            assert ran.code == 2
            assert "is of one run, 2 are given" in ran.line
    ran = call("plot", stored, "--output", tmp_path / "figures")
    assert ran.code == 2
    assert "holds the reports of 2 runs, expected one" in ran.line


def test_a_stored_report_of_several_runs_is_shown_and_judged_again(
    call: Call, golden: Path, tmp_path: Path
) -> None:
    runs = [
        simulated(call, golden, tmp_path / "f.h5", "--noise", "0"),
        simulated(call, golden, tmp_path / "h.h5", "--dtype", "float16", "--noise", "0.5"),
    ]
    stored = tmp_path / "m.json"
    first = call("diff", golden, *runs, "--json", stored, "--html", tmp_path / "1.html")
    shown = call("report", stored, "--html", tmp_path / "2.html")
    assert (shown.code, shown.out) == (0, first.out)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
    assert (first.code, call("diff", stored).code) == (1, 1)
    again = call("diff", stored, "--tolerance", "classic")
    assert again.out.count("by classic)") == 2


def test_a_run_of_another_golden_is_refused(
    call: Call, golden: Path, tmp_path: Path, matrix: list[Path]
) -> None:
    run = simulated(call, golden, tmp_path / "r.h5")
    other = simulated(call, matrix[0], tmp_path / "o.h5")
    ran = call("diff", golden, run, other)
    assert ran.code == 4
    assert "was replayed from another golden" in ran.line


def test_the_time_of_a_step_is_shown(
    call: Call, golden: Path, replayed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    ran = call("diff", golden, replayed, "--times", "--json", out)
    assert "  time of prefill, 5 tokens: golden " in ran.out
    (step,) = json.loads(out.read_text())["steps"]
    files = open_golden(golden), open_golden(replayed)
    expected, actual = (sum(s.time_ns for s in file.sublayers.values()) for file in files)
    assert step == {
        "step": "random-0/00", "kind": "prefill", "tokens": 5, "expected_ns": expected,
        "actual_ns": actual,
    }  # fmt: skip
    assert f"({per_second(5e9 / actual)})" in ran.out


def test_chunks_of_a_prompt_are_prefill_and_padding_is_no_token(
    call: Call, checkpoint: Path, tmp_path: Path
) -> None:
    golden, run, times = tmp_path / "g.h5", tmp_path / "r.h5", tmp_path / "bench.json"
    rows = ("--token-ids", "1,2,3,4,5,6,7", "--token-ids", "8,9,10", "--batch")
    steps = ("--prefill-chunk", "3", "--force-tokens", "5,6;7,8")
    assert call("record", checkpoint, golden, *rows, *steps).code == 0
    assert call("replay", golden, run).code == 0
    said = call("diff", golden, run, "--times").out
    assert "  time of prefill, 10 tokens: " in said
    assert "  time of decode, 4 tokens: " in said
    assert call("bench", golden, "--backend", "torch", "--repeat", "1", "--json", times).code == 0
    measured = json.loads(times.read_text())["results"][0]["steps"]
    assert [(s["kind"], s["tokens"]) for s in measured] == [("prefill", 10), ("decode", 4)]


def test_no_time_of_a_part(call: Call, golden: Path, replayed: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    assert call("replay", golden, part, "--layers", "0-1").code == 0
    assert "tok/s" not in call("diff", golden, part, "--times").out


def test_what_shuffling_showed_is_in_the_report(
    call: Call, golden: Path, replayed: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "r.h5", tmp_path / "r.json"
    assert call("replay", golden, run, "--shuffle").code == 0
    ran = call("diff", golden, run, "--json", out)
    assert "  ✓ deterministic: the same bits in " in ran.out
    determinism = json.loads(out.read_text())["determinism"]
    assert determinism["findings"] == []
    assert determinism["passes"]["plain"] == 2
    assert "✓ deterministic" in call("diff", out).out
