"""What a command that a test ran printed, and the type of the fixture that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
