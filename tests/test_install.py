"""What ``make setup`` shows while pip works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSTALL = Path(__file__).parent.parent / "docs" / "install.py"
# pip as install.py starts it: says the lines of a file, waits for a word, and fails.
PIP = """
import pathlib, sys
assert sys.argv[1:4] == ["install", "--progress-bar", "off"], sys.argv
print(pathlib.Path(sys.argv[4]).read_text(), end="", flush=True)
sys.stdin.readline()
sys.exit("ERROR: no network")
"""
SAID = """\
Looking in indexes: https://host.example/simple
Obtaining file:///home/me/goldenctl
  Installing build dependencies: started
  Preparing editable metadata (pyproject.toml): finished with status 'done'
Requirement already satisfied: click>=8.1 in ./.venv/lib/python3.11/site-packages (8.3.1)
Collecting torch>=2.6
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)
INFO: pip is looking at multiple versions of s3fs to determine which version is compatible.
  Downloading torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (180.2 MB)
  Using cached ml_dtypes-0.5.4-cp311-cp311-linux_x86_64.whl (5.0 MB)
  Downloading https://host.example/a/typing-extensions-4.15.0.tar.gz (44 kB)
Processing /wheels/mdurl-0.1.2-py3-none-any.whl (from markdown-it-py>=2.2.0->rich)
Building wheels for collected packages: goldenctl
Installing collected packages: ml_dtypes, typing-extensions, torch
Successfully installed ml_dtypes-0.5.4 torch-2.13.0 typing-extensions-4.15.0
"""
SHOWN = """\
   looking for versions that fit together
   INFO: pip is looking at multiple versions of s3fs to determine which version is compatible.
   torch 2.13.0+cpu (180.2 MB)
   ml_dtypes 0.5.4 (5.0 MB)
   typing-extensions 4.15.0 (44 kB)
   mdurl 0.1.2
   unpacking 3 packages
"""


def test_each_package_is_shown_as_it_comes_and_pips_exit_code_kept(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(SAID)
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
    with subprocess.Popen(
        [sys.executable, INSTALL, tmp_path / "said"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        # All of it is there while pip still runs.
        assert [process.stdout.readline() for _ in SHOWN.splitlines()] == SHOWN.splitlines(True)
        assert process.poll() is None
        rest = process.communicate("\n", timeout=60)
    assert (process.returncode, *rest) == (1, "", "ERROR: no network\n")
