"""A replay that was killed goes on where it stopped, and ends in the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import Killer

from goldenctl.cli import run
from goldenctl.golden.file import open_golden
from goldenctl.golden.journal import Journal

# Stores its sublayer's number in every tensor, and notes in COUNT that it ran.
_ENGINE = """#!{python}
import json, os, sys, time
plan = json.load(open(sys.argv[1]))
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
def say(event, **rest):
    print(json.dumps(dict(event=event, **rest)), flush=True)
say("ready", protocol=1, program="engine 2", device="cpu", quirks=["odd"])
for index in range(int(options["--skip"]), len(plan["sublayers"])):
    sublayer = plan["sublayers"][index]
    open({count!r}, "a").write(sublayer["name"] + "\\n")
    {before}
    for tensor in sublayer["tensors"]:
        if "store" in tensor:
            size = 4
            for length in tensor["shape"]:
                size *= length
            with open(plan["files"][1]["path"], "r+b") as run:
                run.seek(tensor["store"]["offset"])
                run.write((sublayer["name"].encode() * size)[:size])
    say("sublayer_done", sublayer=index, ns=7)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes the engine and returns its ``exec:`` name."""

    def made(before: str = "") -> str:
        path, count = tmp_path / "engine", str(tmp_path / "count")
        path.write_text(_ENGINE.format(python=sys.executable, count=count, before=before or "pass"))
        path.chmod(0o755)
        return f"exec:{path}"

    return made


def ran(tmp_path: Path) -> list[str]:
    return (tmp_path / "count").read_text().splitlines()


def lines(tmp_path: Path) -> int:
    """How many lines the journal has: one more than there are finished sublayers."""
    journal = tmp_path / "r.h5.resume" / "journal"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def same(actual: Path, expected: Path) -> bool:
    """Whether two runs have the same tensors, and the same recipe and times."""
    a, e = open_golden(actual), open_golden(expected)
    return (a.content_digest, a.recipe, a.sublayers) == (e.content_digest, e.recipe, e.sublayers)


@pytest.mark.parametrize("mode", ["sublayer", "chain"])
def test_killed_at_write_points(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    """Each process dies a few write points on, until one ends."""
    out, whole = tmp_path / "r.h5", tmp_path / "whole.h5"
    arguments = ["--backend", engine(), "--mode", mode]
    assert run(["replay", str(golden_of()), str(whole), *arguments]) == 0
    count = len(ran(tmp_path))
    (tmp_path / "count").unlink()
    deaths = 0
    with Killer(
        "goldenctl.commands.replay", "replay", golden_of(), out, *arguments, "--resume"
    ) as k:
        while k.run(15) == -signal.SIGKILL:
            if out.exists():
                open_golden(out)
            deaths += 1
            assert deaths < 50
    assert deaths > 2
    assert same(out, whole)
    assert len(set(ran(tmp_path))) == count
    assert not (tmp_path / "r.h5.resume").exists()


def test_killed_at_random(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path
) -> None:
    """The real command line, killed from outside."""
    out, whole = tmp_path / "r.h5", tmp_path / "whole.h5"
    backend = engine("time.sleep(0.1)")
    assert run(["replay", str(golden_of()), str(whole), "--backend", backend]) == 0
    command = [sys.executable, "-m", "goldenctl", "replay", str(golden_of()), str(out)]
    command += ["--backend", backend, "--resume"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while lines(tmp_path) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    journal = tmp_path / "r.h5.resume" / "journal"
    done = [json.loads(line) for line in journal.read_bytes().splitlines()[1:]]
    before = len(ran(tmp_path))
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "finished before, and kept: " in finished.stdout
    again = ran(tmp_path)[before:]
    assert not {entry["done"] for entry in done} & set(again)
    assert same(out, whole)


def test_interrupt_keeps_what_is_finished(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path
) -> None:
    out, hangs = tmp_path / "r.h5", tmp_path / "hangs"
    slow = f"if index == 3: open({str(hangs)!r}, 'w').close(); time.sleep(60)"
    command = [sys.executable, "-m", "goldenctl", "replay", str(golden_of()), str(out), "--resume"]
    command += ["--backend", engine(slow)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not hangs.exists() or lines(tmp_path) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == (
        f"goldenctl: interrupted; 3 finished sublayers are kept in {out}.resume; "
        "the same command goes on from there"
    )
    assert not out.exists()
    start, *_ = (tmp_path / "r.h5.resume" / "journal").read_bytes().splitlines()
    with Journal(out, json.loads(start)["recipe"]) as journal:
        assert len(journal.finished) == 3
        busy = subprocess.run(command, capture_output=True, text=True, check=False)
        assert busy.returncode == 2
        said = f"{out}: another goldenctl, or a backend it started, is writing it"
        assert busy.stderr == f"goldenctl: {said}\n"


@pytest.fixture
def half(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path
) -> Callable[..., int]:
    """Leave a replay of which some is finished; return what tries to go on with it."""
    out = tmp_path / "r.h5"
    golden = shutil.copyfile(golden_of(), tmp_path / "g.h5")
    arguments = ["replay", str(golden), str(out), "--backend", engine(), "--resume"]
    with Killer("goldenctl.commands.replay", *arguments) as killer:
        assert killer.run(30) == -signal.SIGKILL

    def again(*more: str) -> int:
        return run([*arguments, *more])

    return again


def test_another_recipe_is_refused(
    half: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tmp_path / "r.h5.resume" / "journal").read_bytes()
    capsys.readouterr()
    assert half("--mode", "op") == 2
    folder = tmp_path / "r.h5.resume"
    assert capsys.readouterr().err == (
        f"goldenctl: {folder}: was begun with mode 'op+sublayer', now it is 'op'; "
        f"give the same options, or delete {folder} to start again\n"
    )
    assert (folder / "journal").read_bytes() == before
    assert half() == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("tensor", "does not match its digest"),
        ("journal", "it does not start as a journal does"),
        ("file", "file is not there"),
        ("offsets", "its tensors lie elsewhere than they should"),
    ],
)
def test_damage_is_refused(
    half: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    said: str,
) -> None:
    folder = tmp_path / "r.h5.resume"
    start, entry, *_ = (folder / "journal").read_bytes().splitlines()
    if damage == "tensor":
        name = next(iter(json.loads(entry)["digests"]))
        with (folder / "file").open("r+b") as file:
            file.seek(json.loads(start)["offsets"][name])
            file.write(b"!")
    elif damage == "journal":
        (folder / "journal").write_bytes(b"{}\n")
    elif damage == "file":
        (folder / "file").unlink()
    else:
        (folder / "journal").write_bytes(start.replace(b'/embedding/output":', b'/x":') + b"\n")
    capsys.readouterr()
    assert half() == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.endswith(f"delete {folder} to start again")


def test_a_torn_line_counts_for_nothing(half: Callable[..., int], tmp_path: Path) -> None:
    """Zeros, or a part of a line, are what a journal may end in when the machine goes down."""
    journal = tmp_path / "r.h5.resume" / "journal"
    with journal.open("ab") as file:
        file.write(bytes(20) + b"\n" + b'{"done": "ca')
    assert half() == 0


def test_a_failed_sublayer_runs_again(
    golden_of: Callable[..., Path], engine: Callable[..., str], tmp_path: Path
) -> None:
    """Only what is right is kept: a failure may have been the machine's."""
    out, mended = tmp_path / "r.h5", tmp_path / "mended"
    before = f"if index == 1 and not os.path.exists({str(mended)!r}): sys.exit(9)"
    command = ["replay", str(golden_of()), str(out), "--resume", "--backend", engine(before)]
    with Killer("goldenctl.commands.replay", *command) as killer:
        assert killer.run(30) == -signal.SIGKILL
    mended.touch()
    assert run(command) == 0
    assert {info.status for info in open_golden(out).sublayers.values()} == {"ok"}
    assert ran(tmp_path).count("cases/random-0/steps/00/layers/00/attention") == 2
