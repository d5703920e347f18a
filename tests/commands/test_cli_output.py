"""Output that cannot be written: the exit code never passes for a verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
