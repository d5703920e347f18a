"""A recording that was killed goes on where it stopped, and ends in the same bytes."""

from __future__ import annotations

import filecmp
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import Killer

from goldenctl.cli import run
from goldenctl.errors import Interrupted
from goldenctl.golden.file import open_golden
from goldenctl.golden.journal import Journal
from goldenctl.golden.times import times_path
from goldenctl.model.inputs import Inputs

# Every sublayer gets an entry, however little time it took.
MODULES = "goldenctl.commands.record,goldenctl.reference.record,goldenctl.reference.keep:_SHARE=0"
VARIANTS = {
    "oracle": ("--dtype", "bfloat16", "--oracle", "keep"),
    "part": ("--layers", "1", "--taps", "sublayer", "--logits", "none"),
    "decode": ("--decode", "2", "--oracle", "--layers", "3"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resume") / "tiny"
    assert run(["synth", "tiny", str(out)]) == 0
    return out


def arguments(checkpoint: Path, out: Path, *more: str) -> list[str]:
    inputs = ["--prompt", "one", "--prompt", "two", "--threads", "1"]
    return ["record", str(checkpoint), str(out), *inputs, *more]


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param("oracle", marks=pytest.mark.slow),
        "part",
        pytest.param("decode", marks=pytest.mark.slow),
    ],
)
def test_killed_at_write_points(checkpoint: Path, tmp_path: Path, variant: str) -> None:
    """Each process dies a few write points on, each a little later, until one ends."""
    out, whole = tmp_path / "g.h5", tmp_path / "whole.h5"
    options = VARIANTS[variant]
    deaths = 0
    with Killer(MODULES, *arguments(checkpoint, whole, *options)) as killer:
        assert killer.run() == 0
    with Killer(MODULES, *arguments(checkpoint, out, *options, "--resume")) as killer:
        while killer.run((19 if variant == "part" else 41) + 9 * deaths) == -signal.SIGKILL:
            if out.exists():
                open_golden(out)
            deaths += 1
            assert deaths < 100
    assert deaths > 1
    assert filecmp.cmp(out, whole, shallow=False)
    assert not (tmp_path / "g.h5.resume").exists()
    if times_path(out).exists():  # the very last thing to be written
        assert all(info.time_ns > 0 for info in open_golden(out).sublayers.values())


@pytest.mark.slow
def test_killed_at_random(checkpoint: Path, tmp_path: Path) -> None:
    """The real command line, killed from outside."""
    out, whole = tmp_path / "g.h5", tmp_path / "whole.h5"
    options = ("--random-tokens", "400", "--threads", "1")
    command = [sys.executable, "-m", "goldenctl", "record", str(checkpoint)]
    journal = tmp_path / "g.h5.resume" / "journal"
    with subprocess.Popen([*command, str(out), *options, "--resume"]) as process:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not out.exists()
    again = subprocess.run(
        [*command, str(out), *options, "--resume"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    subprocess.run([*command, str(whole), *options], check=True)
    assert filecmp.cmp(out, whole, shallow=False)


def test_what_does_not_fit_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.h5"
    folder = tmp_path / "g.h5.resume"
    with Killer(MODULES, *arguments(checkpoint, out, "--resume")) as killer:
        assert killer.run(20) == -signal.SIGKILL
    capsys.readouterr()
    assert run(arguments(checkpoint, out, "--resume", "--dtype", "bfloat16")) == 2
    assert capsys.readouterr().err == (
        f"goldenctl: {folder}: was begun with dtype 'float32', now it is 'bfloat16'; "
        f"give the same options, or delete {folder} to start again\n"
    )
    for path in folder.glob("state.*"):
        path.write_bytes(b"!")
    assert run(arguments(checkpoint, out, "--resume")) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not match its digest" in line


def test_repetitions_have_a_spread(checkpoint: Path, tmp_path: Path) -> None:
    once, often = tmp_path / "1.h5", tmp_path / "5.h5"
    assert run(arguments(checkpoint, once)) == 0
    assert run(arguments(checkpoint, often, "--repeat", "5")) == 0
    assert filecmp.cmp(once, often, shallow=False)
    one, five = open_golden(once), open_golden(often)
    assert {info.iqr_ns for info in one.tensors.values()} == {0}
    measured = [info for info in five.tensors.values() if info.op]
    assert measured
    assert all(info.time_ns > 0 for info in measured if info.tap not in ("key", "value"))
    assert any(info.iqr_ns > 0 for info in measured)
    assert any(info.iqr_ns > 0 for info in five.sublayers.values())


def test_progress_knows_the_total_before_anything_is_done(checkpoint: Path, tmp_path: Path) -> None:
    from goldenctl.commands.record import prepare
    from goldenctl.reference.record import record

    calls: list[tuple[int, int, str]] = []
    recording = prepare(checkpoint, Inputs(token_ids=("1,2",), decode=2))
    record(recording, tmp_path / "g.h5", lambda *call: calls.append(call))
    total = len(open_golden(tmp_path / "g.h5").sublayers)
    assert calls[0] == (0, total, "")
    assert [done for done, *_ in calls[1:]] == list(range(1, total + 1))
    assert {of for _, of, _ in calls} == {total}


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "interrupted; no finished sublayer is kept yet; the same command begins again"),
        (1, "interrupted; 1 finished sublayer is kept in {}; the same command goes on from there"),
    ],
)
def test_an_interruption_says_what_is_kept(count: int, said: str, tmp_path: Path) -> None:
    out = tmp_path / "g.h5"

    def interrupted() -> None:
        with Journal(out, {}) as journal:
            journal.begin("2026-01-01T00:00:00Z", {})
            if count:
                journal.add("embedding", {}, rest={})
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        interrupted()
    assert str(caught.value) == said.format(f"{out}.resume")
