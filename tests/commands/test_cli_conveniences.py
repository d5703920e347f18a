"""Standard output as a file, folders of goldens, near misses, progress without a terminal."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from ran import Call

from goldenctl.commands import options


def test_a_report_on_standard_output_is_all_that_is_there(call: Call, golden: Path) -> None:
    ran = call("diff", golden, golden, "--json", "-")
    assert (ran.code, json.loads(ran.out)["ok"]) == (0, True)
    rows = list(csv.DictReader(io.StringIO(call("diff", golden, golden, "--csv", "-").out)))
    assert {row["state"] for row in rows} == {"passed"}
    twice = call("diff", golden, golden, "--csv", "-", "--json", "-")
    assert (twice.code, twice.line) == (2, "goldenctl: -: is given for two formats")


def test_two_folders_are_compared_by_name(call: Call, golden: Path, tmp_path: Path) -> None:
    goldens, runs = tmp_path / "goldens", tmp_path / "runs"
    for folder in (goldens, runs):
        folder.mkdir()
        for name in ("a.h5", "b.h5"):
            shutil.copy(golden, folder / name)
    ran = call("diff", goldens, runs)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "✓ PASS  2 of 2 runs within tolerance")
    simulated = ("replay", golden, runs / "b.h5", "--backend", "simulated", "--noise", "0.5")
    (runs / "b.h5").unlink()
    assert call(*simulated).code == 0
    ran = call("diff", goldens, runs)
    assert (ran.code, ran.out.splitlines()[-1]) == (1, "✗ FAIL  1 of 2 runs within tolerance")
    (runs / "b.h5").unlink()
    ran = call("diff", goldens, runs)
    assert ran.code == 2
    assert ran.line.startswith(f"goldenctl: {runs}: has no b.h5, which {goldens} has; ")
    assert (
        "--json: a file holds the report of one golden"
        in call("diff", goldens, goldens, "--json", tmp_path / "r.json").line
    )
    assert call("diff", runs.parent / "runs", tmp_path).line.endswith("has no a.h5, which "
        f"{runs} has; replay {runs / 'a.h5'} to it")  # fmt: skip


def test_a_fault_that_is_nearly_one_is_named(call: Call, golden: Path, tmp_path: Path) -> None:
    ran = call("replay", golden, tmp_path / "r.h5", "--inject", "no_nrm@layers.01")
    assert ran.code == 2
    assert ran.line.endswith("there is no fault no_nrm; did you mean no_norm?")


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 9.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr(options.time, "monotonic", lambda: next(times))
    with options.progress_bar("recording") as update:
        update(1, 1200, "a")
        update(2, 1200, "b")
        update(3, 1200, "c")
    assert capsys.readouterr().err == "recording: 2 of 1,200, b\n"


def test_the_cache_is_shown_and_cleared(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, kept = tmp_path / "cache", tmp_path / "kept"
    monkeypatch.setenv("GOLDENCTL_CACHE", str(cache))
    assert call("cache").out == f"{cache}: nothing is there\n"
    (cache / "harness").mkdir(parents=True)
    (cache / "harness" / "program").write_bytes(bytes(2048))
    kept.mkdir()
    (kept / "mine").write_bytes(bytes(4096))
    (cache / "link").symlink_to(kept)
    shown = call("cache").out.splitlines()
    assert shown[0].startswith("   2.0 KiB  harness: built harnesses")
    assert shown[-1].endswith(f" in {cache}; --clear removes it")
    cleared = call("cache", "--clear")
    assert (cleared.code, cleared.out.splitlines()[-1][:16]) == (0, "removed 2 parts,")
    assert list(cache.iterdir()) == []
    assert (kept / "mine").exists()
