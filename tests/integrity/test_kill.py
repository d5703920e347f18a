"""A short run of kill.py and disk.py: in a process of their own, which forks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from forked import can_inject

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="record needs torch, which is not installed"
)


def measured(script: str, *options: str) -> str:
    command = [sys.executable, Path(__file__).with_name(script), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_at_random_moments() -> None:
    """Nothing half is visible, nothing older is harmed, and the next run works and tidies up."""
    said = measured("kill.py", "--random", "1", "--no-writes")
    assert said.count(", 0 bad") == said.count("runs") >= 2


@pytest.mark.skipif(not can_inject(), reason="strace is not installed, or may not trace here")
@pytest.mark.slow
def test_killed_at_some_writes() -> None:
    calls = ("--calls", "rename", "fsync", "--every", "3")
    said = measured("kill.py", "--random", "0", "--only", "record --name", *calls)
    assert "killed" in said


@pytest.mark.skipif(not can_inject(), reason="strace is not installed, or may not trace here")
def test_writes_that_fail() -> None:
    """A full, broken or forbidden disk is said in one line, and nothing is lost."""
    said = measured("disk.py", "--only", "manifest", "--every", "24", "--steps", "2")
    assert "manifest, every write fails" in said
    assert "refused" in said
