"""A golden that means harm is refused in one line, opening nothing else, in bounded memory."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_goldens import EDITS, SECRET, write_all
from subjects import golden_and_run

from goldenctl.errors import EXIT_DAMAGED

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("hostile_goldens.py")
MEMORY_BYTES = 2 << 30  # address space; Python, NumPy and h5py take half a GiB of it


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    folder = tmp_path_factory.mktemp("hostile")
    golden, _ = golden_and_run(folder)
    (folder / SECRET).write_bytes(golden.read_bytes())
    return write_all(golden.read_bytes(), folder)


def test_all_are_refused_in_one_line(hostile: dict[Path, str]) -> None:
    """Under a limit of memory and, where strace is installed, a trace of what is opened."""
    trace = next(iter(hostile)).with_name("trace")
    strace = shutil.which("strace")
    watch = [strace, "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace] if strace else []
    done = subprocess.run(
        [*watch, sys.executable, SCRIPT, *hostile],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=True,
    )
    assert done.stderr == ""
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, *_ in lines] == [str(path) for path in hostile]
    unclear = []
    for (path, code, said), wanted in zip(lines, hostile.values(), strict=True):
        assert int(code) == EXIT_DAMAGED, f"{path}: {said}"
        assert said.startswith(f"{path}: ")
        assert said.isprintable()
        assert len(said) < 2000
        unclear += [] if re.search(wanted, said) else [f"{said} (expected {wanted})"]
    assert not unclear
    if strace:
        opened = trace.read_text()
        assert str(next(iter(hostile))) in opened
        assert f"/{SECRET}" not in opened


def test_the_edits_do_harm_elsewhere(hostile: dict[Path, str]) -> None:
    """h5py itself follows what these files say: the test above would see it."""
    import h5py

    path = next(path for path in hostile if path.stem == "external_link")
    with h5py.File(path) as file:
        assert "cases" in file["cases/elsewhere"]
    assert len(EDITS) > 35
