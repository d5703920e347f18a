"""What of a report is shown."""

from __future__ import annotations

from dataclasses import dataclass

from goldenctl.records.words import Matcher, matcher


@dataclass(frozen=True)
class Choice:
    """All of a report, unless a person asked for less: ``worst`` sublayers, those with tensors
    that match ``only``; ``brief`` is the terminal without --verbose, where ``times`` are
    shown only when asked for."""

    worst: int | None = None
    only: str | None = None
    brief: bool = False
    times: bool = False

    @property
    def matches(self) -> Matcher:
        return matcher(self.only)

    @property
    def timed(self) -> bool:
        return self.times or not self.brief

    @property
    def every(self) -> bool:
        """Whether all cases and steps are shown, not only the one that is wrong first."""
        return self.only is not None or not self.brief


ALL, BRIEF = Choice(), Choice(brief=True)
