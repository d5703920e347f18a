"""Recordings of the same inputs in several dtypes: their names, inputs and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.errors import GoldenctlError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.steps import steps
from goldenctl.model.case import Case
from goldenctl.reference.record import Recording, recipe


def variant_path(golden: Path | None, dtype: str) -> Path | None:
    """``golden.h5`` in bfloat16 is ``golden.bfloat16.h5``."""
    return None if golden is None else golden.with_name(f"{golden.stem}.{dtype}{golden.suffix}")


def variant_name(name: str | None, dtype: str) -> str | None:
    """The set ``qwen3`` in bfloat16 is ``qwen3-bfloat16``."""
    return None if name is None else f"{name}-{dtype}"


class Variants:
    """One recording in several dtypes.

    What the first of them generates is forced on the others, which might choose other tokens.
    With an oracle each golden gets the budgets of ``budget_dtypes``, by default of the coarser
    ones among ``dtypes``, for replays in them.
    """

    def __init__(
        self, recording: Recording, dtypes: Sequence[str], budget_dtypes: Sequence[str] | None
    ) -> None:
        self._recording = recording
        self._dtypes = dtypes
        self._budget_dtypes = budget_dtypes
        self._first: GoldenFile | None = None

    def of(self, dtype: str) -> Recording:
        """Return the recording in ``dtype``, of the inputs that the first one had."""
        selection, cases = self._recording.selection, self._recording.cases
        if selection.oracle != "none":
            selection = replace(selection, budget_dtypes=self._further(dtype))
        if self._first is not None:
            cases = [_forced(case, self._first) for case in cases]
        return replace(self._recording, dtype=dtype, selection=selection, cases=cases)

    def note(self, golden: Path) -> None:
        """Take the inputs of the first golden that there is."""
        self._first = self._first or open_golden(golden)

    def is_there(self, dtype: str, golden: Path) -> bool:
        """Whether this very recording has a golden already; if so its inputs are noted."""
        if not golden.exists():
            return False
        try:
            there = open_golden(golden, kind="golden").recipe == recipe(self.of(dtype))
        except GoldenctlError:
            return False
        if there:
            self.note(golden)
        return there

    def _further(self, dtype: str) -> tuple[str, ...]:
        wanted = self._budget_dtypes
        if wanted is None:
            wanted = [other for other in self._dtypes if DTYPES[other].eps > DTYPES[dtype].eps]
        return tuple(other for other in wanted if other != dtype)


def _forced(case: Case, golden: GoldenFile) -> Case:
    """Return the case with the tokens that the golden's steps took."""
    if not case.generates:
        return case
    columns = [
        np.asarray(golden.verify(f"{step.path}/token_ids"))
        for step in steps(case)
        if step.is_generated
    ]
    rows = np.concatenate(columns, axis=1).tolist()
    return replace(case, forced=tuple(map(tuple, rows)))
