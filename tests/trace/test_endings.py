"""However a traced program ends, one line says so, and what it did until then is readable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install
from goldenctl.trace.calls import read_calls
from goldenctl.trace.launch import states
from tests.trace.conftest import Trace

PATIENCE_S = 300.0  # on a busy machine


def last_line(stderr: str) -> str:
    return stderr.rstrip().splitlines()[-1]


ENDINGS = {
    "crash": ("SIGSEGV ended it", 2),
    "inside": ("SIGSEGV ended it in infiniopAdd, call 3", 2),
    "fail": ("ended with exit status 3", 2),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_that_fails_is_told_in_a_line_and_its_calls_are_kept(
    trace: Trace, engine: Path, how: str
) -> None:
    says, count = ENDINGS[how]
    traced = trace(engine, how)
    assert (traced.code, last_line(traced.stderr)) == (1, f"goldenctl: {engine}: {says}")
    assert len(list(traced.calls.calls)) == count
    assert traced.calls.ended == (how == "fail")


def test_a_program_of_this_folder_is_found_as_in_a_shell(
    trace: Trace, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(engine.parent)
    assert trace(f"./{engine.name}").code == 0


def test_a_program_that_hangs_is_ended_when_its_time_is_over(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "hang", options=("--timeout", "6"))
    assert (traced.code, last_line(traced.stderr)) == (
        1,
        f"goldenctl: {engine}: was ended after 6 s",
    )
    assert len(list(traced.calls.calls)) == 2


def test_a_program_without_infinicore_is_told_so(trace: Trace, engine: Path) -> None:
    for command in ((engine, "nothing"), (engine, "handle"), ("/bin/true",)):
        traced = trace(*command)
        assert traced.code == 3
        assert "never launched an op of InfiniCore" in last_line(traced.stderr)
        assert not traced.kept.exists()


def test_another_infinicore_than_the_one_meant_ends_the_program(
    trace: Trace, engine: Path, infini_install: Install, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(infini_install.root, other)
    same = trace(engine, "well", options=("--infini-root", str(other)))
    assert same.code == 0  # its bytes are the same, wherever they lie
    (other / "goldenctl-install.json").unlink()
    with (other / "lib" / "libinfiniop.so").open("ab") as file:
        file.write(b"newer")
    traced = trace(engine, "well", options=("--infini-root", str(other)))
    assert (traced.code, traced.stdout) == (3, "")
    assert f"loads {infini_install.root}/lib/libinfiniop.so, another InfiniCore than" in (
        last_line(traced.stderr)
    )


def compiled(source: str, target: Path, *options: str) -> Path:
    words = [compiler(), "-x", "c++", "-", "-o", str(target), *options]
    subprocess.run(words, input=source, text=True, check=True)
    return target


def test_programs_that_cannot_be_traced_are_refused(trace: Trace, tmp_path: Path) -> None:
    inside = 'extern "C" int infiniopCreateAddDescriptor() { return 0; } int main() {}'
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    narrow = tmp_path / "narrow"
    narrow.write_bytes(b"\x7fELF\1\1" + bytes(60))
    narrow.chmod(0o755)
    others = tmp_path / "others"
    shutil.copy("/bin/true", others)
    os.chown(others, 1, 1)
    others.chmod(0o4755)
    expected = {
        tmp_path / "missing": "there is no such program",
        tmp_path: "is a folder, expected a program",
        plain: "is not executable",
        narrow: "is a 32-bit program",
        others: "is setuid or setgid",
        compiled("int main() {}", tmp_path / "static", "-static"): "is linked statically",
        compiled(inside, tmp_path / "within"): "has InfiniCore in itself (infiniopCreateAdd",
    }
    for program, says in expected.items():
        if program == others and os.geteuid() != 0:
            continue
        traced = trace(program)
        assert (traced.code, len(traced.stderr.splitlines())) == (3, 1), traced.stderr
        assert f"{program}: {says}" in traced.stderr


def test_a_full_disk_is_told_and_the_program_goes_on(trace: Trace, engine: Path) -> None:
    script = f"trap '' XFSZ; ulimit -f 8; exec {engine} threads"
    traced = trace("/bin/sh", "-c", script)
    assert (traced.code, traced.stdout) == (2, "well\n")
    assert traced.stderr.count("cannot be written (File too large); the program goes on") == 1
    assert "could not be written whole (File too large)" in last_line(traced.stderr)
    assert 0 < len(list(traced.calls.calls)) < 82
    assert traced.calls.torn_bytes == 0


def until_calls(folder: Path, count: int) -> None:
    """Wait until a program that is traced beside a file of the folder has made so many calls."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        logs = folder.glob(".*.trace-*")
        if any(state.calls == count for log in logs for state in states(log)):
            return
        time.sleep(0.05)
    pytest.fail("the program made no calls")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_ends_the_program_and_keeps_its_calls(
    engine: Path, traced_model: tuple[Path, Path], tmp_path: Path, number: int, code: int
) -> None:
    run_path = tmp_path / "run.h5"
    command = [sys.executable, "-m", "goldenctl", "trace", str(traced_model[1]), str(run_path)]
    words = [*command, "--", str(engine), "hang"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            until_calls(tmp_path, 2)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == code, stderr
    kept = tmp_path / "run.h5.calls"
    assert f"what it did until then: goldenctl inspect {kept}" in stderr.decode()
    assert len(list(read_calls(kept).calls)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.h5.calls"]


def test_what_is_there_already_and_is_no_log_stays(trace: Trace, engine: Path) -> None:
    first = trace(engine, "well")
    first.kept.write_text("mine")
    traced = trace(engine, "well")
    assert (traced.code, first.kept.read_text()) == (2, "mine")
    assert "it exists and is not a log of calls" in traced.stderr


WRONG = {
    "no program": (("--",), 2, "no PROGRAM was given"),
    "no such op": (("--ops", "conv9", "--", "x"), 2, "'conv9' is neither an op of a golden"),
    "no time": (("--timeout", "0", "--", "x"), 2, "--timeout"),
    "no install": (("--infini-root", "/nowhere", "--", "x"), 3, "/nowhere is not an InfiniCore"),
}


@pytest.mark.parametrize(("words", "code", "says"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_told_in_a_line(
    traced_model: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    assert run(["trace", str(traced_model[1]), str(tmp_path / "run.h5"), *words]) == code
    stderr = capsys.readouterr().err
    assert says in stderr
    assert len(stderr.splitlines()) == 1


def test_inspect_lists_the_calls_of_a_log(
    trace: Trace, engine: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    traced = trace(engine, "product")
    assert run(["inspect", str(traced.kept)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert ["calls", "4:", "Gemm", "2,", "Add", "2"] in [line.split() for line in lines]
    (row,) = (line for line in lines if "beta=3.0" in line)
    assert "c+=f32[2,4] a=f32[2,3] b=f32[3,4]" in row
    assert run(["inspect", str(traced.kept), "q_proj"]) == 2
