"""What a command that a test ran printed, and the type of the fixture that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Call = Callable[..., "Ran"]


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that an error is; fails when it is not one."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("goldenctl: ")
        assert "internal error" not in lines[0]
        return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
