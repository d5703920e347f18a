"""The steps of a check of golden sets, as part of a report."""

from __future__ import annotations

import msgspec


class CheckStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of one golden set.

    ``step`` is integrity, record or replay, ``state`` passed, failed, missing, damaged or error.
    ``judged_by`` counts tensors by what judged them, ``share`` is the largest part of a
    tolerance used, None where nothing was compared; ``said`` is one line on what was found,
    ``not_compared`` names outputs that a pass says nothing of.
    """

    golden: str
    step: str
    state: str
    judged_by: str = ""
    share: float | None = None
    said: str = ""
    not_compared: str = ""

    @property
    def ok(self) -> bool:
        return self.state == "passed"
