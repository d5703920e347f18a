"""What golden sets lose and what they never do: rm, gc, two writers, stops in between."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ran import Call, contents

from goldenctl.sets.manifest import read_manifest
from goldenctl.sets.names import locked, open_set

TINY = "synth:tiny?seed=0"


def test_rm_refuses_what_the_manifest_needs(
    call: Call, goldens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(goldens)
    for arguments in (("tiny@v1",), ("tiny",), ("tiny@v3",), ("none",)):
        assert call("rm", *arguments).code == (3 if arguments == ("tiny@v3",) else 2)
    monkeypatch.setattr("click.confirm", lambda _: False)
    assert "nothing was removed" in call("rm", "tiny@v1", "--force").line
    assert contents(goldens) == before
    assert call("rm", "tiny@v2").code == 0
    assert not (goldens / "tiny" / "v2.h5").exists()
    assert not (goldens / "tiny" / "v2.h5.times.json").exists()
    assert call("rm", "tiny@v1", "--force", "--yes").code == 0
    assert not (goldens / "tiny" / "v1.h5").exists()
    assert call("rm", "tiny", "--force", "--yes").code == 0
    assert not (goldens / "tiny").exists()


def test_rm_of_a_set_with_nothing_in_it_asks_nothing(call: Call, goldens: Path) -> None:
    (goldens / "bare").mkdir()
    ran = call("rm", "bare", "--force")
    assert (ran.code, ran.out) == (0, f"removed {goldens / 'bare'}\n")
    assert not (goldens / "bare").exists()


def test_rm_where_nobody_answers_names_yes(
    call: Call, goldens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(goldens)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ran = call("rm", "tiny", "--force")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].endswith("there is no terminal to ask on; pass --yes")
    assert {k: v for k, v in contents(goldens).items() if ".lock" not in k} == {
        k: v for k, v in before.items() if ".lock" not in k
    }


def test_the_next_version_takes_away_what_a_killed_one_left(call: Call, goldens: Path) -> None:
    part = goldens / "tiny" / ".v2.h5.times.json.999999999.part"
    part.write_bytes(b"half")
    assert call("record", TINY, "--name", "tiny", "--token-ids", "1").code in (0, 1)
    assert not part.exists()


def test_gc_says_first_and_removes_only_what_nobody_needs(call: Call, goldens: Path) -> None:
    part = goldens / "tiny" / ".v9.h5.999999999.part"
    part.write_bytes(b"half")
    (goldens / "tiny" / "v3.h5.resume").mkdir()
    (goldens / "tiny" / "v3.h5.resume" / "journal").write_bytes(b"half")
    before = contents(goldens)
    ran = call("gc")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith("4 files, ")
    assert "left by a process that ended" in ran.out
    assert "v2 is not in the manifest" in ran.out
    assert contents(goldens) == before
    assert call("gc", "tiny", "--delete").code == 0
    left = sorted(path.name for path in (goldens / "tiny").iterdir())
    assert left == [".lock", "manifest.json", "v1.h5", "v1.h5.times.json"]
    assert call("gc").out == "nothing to remove\n"


# --- two writers, interruptions --------------------------------------------------------------


def test_of_two_writers_one_wins(call: Call, goldens: Path) -> None:
    before = contents(goldens)
    with locked(open_set("tiny", goldens)):
        for arguments in (
            ("record", TINY, "--name", "tiny", "--random-tokens", "3"),
            ("manifest", "tiny"),
            ("rm", "tiny@v2"),
            ("gc", "--delete"),
        ):
            ran = call(*arguments)
            assert ran.code == 2
            assert f"tiny: another goldenctl (process {os.getpid()}) is writing" in ran.line
        assert call("diff", "tiny@v1", "tiny@v2").code == 0  # readers do not wait
    after = contents(goldens)
    del before["tiny/.lock"], after["tiny/.lock"]
    assert after == before


def test_a_stop_between_golden_and_manifest_leaves_both_whole(
    call: Call, goldens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("goldenctl.sets.renew.describe", stop)
    record = ("record", TINY, "--name", "new", "--token-ids", "1")
    ran = call(*record)
    assert ran.code == 130
    assert sorted(path.name for path in (goldens / "new").iterdir()) == [
        ".lock",
        "v1.h5",
        "v1.h5.times.json",
    ]
    monkeypatch.undo()
    monkeypatch.setenv("GOLDENS_DIR", str(goldens))
    assert call("manifest", "new").code == 0
    assert call(*record).code == 0
    assert "v2.h5" in call("gc").out


def test_a_cut_pipe_stops_no_manifest(call: Call, goldens: Path) -> None:
    command = [sys.executable, "-m", "goldenctl", "record", TINY, "--token-ids", "1", "--name"]
    process = subprocess.Popen(
        [*command, "new"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("recording 1 case, 1 token, ")
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (141, "")
    manifest = read_manifest(goldens / "new/manifest.json")
    assert (manifest.version, len(manifest.tensors)) == (1, 83)
    assert call("check", "new", "--integrity").code == 0


def test_an_interrupted_version_is_resumed(
    call: Call, goldens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goldenctl.reference import record

    forward, calls = record.run_sublayer, iter(range(100))

    def stop(*arguments: object, **options: object) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return forward(*arguments, **options)  # type: ignore[arg-type]

    arguments = ("record", TINY, "--name", "tiny", "--random-tokens", "3", "--oracle", "--resume")
    monkeypatch.setattr(record, "run_sublayer", stop)
    assert call(*arguments).code == 130
    monkeypatch.setattr(record, "run_sublayer", forward)
    assert "v3.h5.resume" in call("gc").out
    ran = call(*arguments)
    assert ran.code == 0, ran.err
    assert "tiny@v3 against tiny@v1: 166 tensors, 166 the same bytes" in ran.out
    files = [goldens / "tiny" / f"v{number}.h5" for number in (1, 3)]
    assert files[0].read_bytes() == files[1].read_bytes()
