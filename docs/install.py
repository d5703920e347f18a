"""Installs with pip, and says a line for each package as it comes.

    python docs/install.py ARGUMENT...

The arguments are those of ``pip install``. Its own output is either a bar, of which a log keeps
hundreds of states, or a line for every step; errors and warnings are shown as pip prints them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

PIP = (sys.executable, "-m", "pip", "install", "--progress-bar", "off")
_FILE = re.compile(
    r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([^\s/]+?)-(\d[^\s-]*?)"
    r"(?:-\S+)?\.(?:whl|zip|tar\.gz)(?!\S)(?: (\(\d[^)]+\)))?"
)
_ALL = "Installing collected packages: "


def shown(line: str) -> str:
    """Return what is said of a line that pip printed: that versions are looked for, a package
    with its size, how many are unpacked, why it takes long; empty for the rest."""
    if file := _FILE.match(line):
        return "   " + " ".join(filter(None, file.groups()))
    if line.startswith(_ALL):
        names = line.removeprefix(_ALL).split(", ")
        return f"   unpacking {len(names)} package{'s' if len(names) > 1 else ''}"
    if line.startswith("Obtaining "):
        return "   looking for versions that fit together"
    return f"   {line}" if line.startswith("INFO: ") else ""


def install(arguments: Sequence[str]) -> int:
    """Run pip and return its exit code."""
    command = [*PIP, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if said := shown(line.rstrip("\n")):
                sys.stdout.write(f"{said}\n")
                sys.stdout.flush()
    return pip.returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
