"""The pages whose examples are run as they are written, and the example backend."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from goldenctl.cli import run

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "tutorial.md", DOCS / "howto" / "read-a-golden.md"]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
_NUMBER = re.compile(r"\d[\d,.]*(e[+-]\d+)?")


@dataclass(frozen=True)
class Example:
    """A command of a page and the output it shows; ``...`` stands for any lines.

    A block of Python is a command that shows nothing.
    """

    command: str
    shown: tuple[str, ...]
    exit_code: int


def examples(page: Path) -> list[Example]:
    text = page.read_text(encoding="utf-8")
    found = []
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            found.append(Example(shlex.join([sys.executable, "-c", block]), ("...",), 0))
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            ending = re.fullmatch(r"# exit code (\d+)", shown[-1]) if shown else None
            lines = shown[:-1] if ending else shown
            found.append(Example(command, tuple(lines), int(ending[1]) if ending else 0))
    return found


def pattern(shown: tuple[str, ...]) -> str:
    """A regular expression in which numbers, their width and elided lines may differ."""
    lines = [r"(?:.*\n)*?" if line == "..." else re.escape(plain(line)) for line in shown]
    return "".join(lines)


def plain(text: str) -> str:
    lines = (" ".join(_NUMBER.sub("9", line).split()) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs_as_written(page: Path, tmp_path: Path, harness: Path) -> None:
    assert harness.exists()
    found = examples(page)
    if any("h5dump" in example.command for example in found) and not shutil.which("h5dump"):
        pytest.skip("needs h5dump (Debian: hdf5-tools)")
    assert found
    (tmp_path / "docs").symlink_to(DOCS)  # the pages are read in a clone
    env = {**os.environ, "PATH": PATH, "COLUMNS": "80"}
    for example in found:
        done = subprocess.run(
            ["sh", "-c", example.command], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == example.exit_code, f"{example.command}\n{done.stderr}"
        actual = plain(done.stdout)
        assert re.fullmatch(pattern(example.shown), actual), f"{example.command}\n{done.stdout}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", ["tiny", "llama-bias-tiny"])
def test_example_backend_passes(
    preset: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", PATH)  # its first line asks for the python3 found there
    model, golden, out = (str(tmp_path / name) for name in ("model", "golden.h5", "run.h5"))
    backend = f"exec:{DOCS / 'examples' / 'numpy_backend.py'}"
    assert run(["synth", preset, model]) == 0
    assert run(["record", model, golden, "--dtype", dtype, "--oracle"]) == 0
    assert run(["replay", golden, out, "--backend", backend, "--repeat", "2"]) == 0
    assert run(["diff", golden, out]) == 0
