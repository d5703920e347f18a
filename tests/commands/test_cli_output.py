"""Output that cannot be written: the exit code never passes for a verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ran import Call

COMMAND = [sys.executable, "-m", "goldenctl"]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONUNBUFFERED": request.param} if request.param else kept


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@needs_full
@pytest.mark.parametrize("arguments", [["faults"], ["--help"]])
def test_a_full_standard_output_is_said(environment: dict[str, str], arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "goldenctl: standard output or a file: No space left on device\n"


@needs_full
def test_a_full_standard_error_keeps_the_exit_code(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "inspect", "/no/such/golden.h5"]
        assert subprocess.run(command, stderr=full, env=environment).returncode == 2


@pytest.mark.parametrize("arguments", [["faults"], ["--help"]])
def test_a_broken_pipe_is_no_verdict(environment: dict[str, str], arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=pipe, stderr=subprocess.PIPE, env=environment
        )
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.fixture(scope="session")
def judged(golden: Path) -> tuple[Path, Path]:
    """Return a run that is far beyond tolerance, and the report on it."""
    from goldenctl.cli import run

    bad, report = golden.parent / "bad.h5", golden.parent / "bad.json"
    assert run(["replay", str(golden), str(bad), "--backend", "simulated", "--noise", "0.5"]) == 0
    assert run(["diff", str(golden), str(bad), "-q", "--json", str(report)]) == 1
    return bad, report


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "utf-8"])
def test_every_encoding_prints_the_verdict(
    call: Call, golden: Path, judged: tuple[Path, Path], encoding: str
) -> None:
    name = encoding.partition(":")[0]
    for command, code, said in (
        (["diff", golden, judged[0]], 1, "✗ FAIL"),
        (["report", judged[1]], 0, "✗ FAIL"),
        (["list", "--goldens", golden.parent / "none"], None, ""),
        *([(["doctor"], None, "")] if encoding == "gbk" else []),
    ):
        done = subprocess.run(
            [*COMMAND, *map(str, command)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"},
        )
        wanted = call(*command)
        assert done.returncode == (wanted.code if code is None else code), done.stderr
        shown = done.stdout.decode(name), done.stderr.decode(name)
        assert "internal error" not in shown[1]
        assert said.replace("✗", "✗" if name == "utf-8" else "x") in shown[0]
        if said:
            expected = wanted.out.encode(name, "replace").decode(name)
            assert len(shown[0].splitlines()) == len(expected.splitlines())
