"""Prints the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
EXTRAS = ("build", "gguf", "plot", "record", "remote", "test")


def lowest(requirement: str) -> str:
    """Return ``name==1.2`` of ``name>=1.2``, whatever else it says."""
    found = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
    assert found is not None, f"{requirement}: has no lower bound"
    return f"{found[1]}=={found[2]}"


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]
    foreign = [each for each in wanted if not each.startswith("goldenctl[")]
    sys.stdout.write("\n".join(map(lowest, foreign)) + "\n")


if __name__ == "__main__":
    main()
