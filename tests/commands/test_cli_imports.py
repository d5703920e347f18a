"""What a command imports: torch only where it computes, nothing heavy for --help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from goldenctl.cli import cli

HEAVY = ("torch", "h5py", "numpy", "rich", "msgspec", "transformers")
# Hides the modules named in its first argument, then runs the command line.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # as if they were not installed
from goldenctl.cli import run
sys.exit(run(sys.argv[2:]))
"""


def without(modules: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, ",".join(modules), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command_lines(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_lines(command, *before, name)
        else:
            yield (*before, name)


@pytest.mark.parametrize("words", list(command_lines(cli)), ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    ran = without(HEAVY, *words, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: {' '.join(('goldenctl', *words))} [OPTIONS]")


def test_the_blocker_blocks(checkpoint: Path, tmp_path: Path) -> None:
    ran = without(("torch",), "record", checkpoint, tmp_path / "g.h5", "--token-ids", "1")
    assert ran.returncode == 3
    assert "pip install 'goldenctl[record]'" in ran.stderr


def test_replay_diff_and_inspect_need_no_torch(
    golden: Path, replayed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.h5"
    for arguments in (
        ("replay", golden, out, "--backend", "infinicore"),
        ("diff", golden, out),
        ("inspect", out),
        ("inspect", out, "layers/03/mlp/output"),
        ("faults",),
        ("synth", "tiny", tmp_path / "tiny"),
        ("infinicore", "status"),
        ("diff", golden, out, "--json", tmp_path / "r.json", "--html", tmp_path / "r.html"),
        ("report", tmp_path / "r.json", "--csv", tmp_path / "r.csv"),
        ("plot", tmp_path / "r.json", "--output", tmp_path / "figures"),
        ("export", golden, tmp_path / "g.npz"),
        ("blame", golden),
        ("bench", golden, "--backend", "infinicore", "--repeat", "1"),
    ):
        ran = without(("torch", "transformers"), *arguments)
        assert ran.returncode == 0, (arguments, ran.stderr)


def test_an_engines_fault_needs_no_torch_and_an_emulated_one_says_so(
    golden: Path, replayed: Path, tmp_path: Path
) -> None:
    replay = ("replay", golden, tmp_path / "r.h5", "--layers", "0", "--inject")
    assert without(("torch",), *replay, "no_rope").returncode == 0
    ran = without(("torch",), *replay, "zero_row@layers.00.mlp.up_proj", "--force")
    assert ran.returncode == 3
    assert "fault zero_row" in ran.stderr
    assert "the torch package is not installed" in ran.stderr
