"""A tolerance policy as data: what a report judges by and a manifest keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from goldenctl.errors import UsageError


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a tensor must satisfy; None is not asked for.

    ``rel_l2``, ``mse`` and ``max_ulp`` are upper bounds, ``cosine`` a lower one. ``peak``
    bounds max |a-e| / max |e|, ``scale`` bounds |s - 1| of the best fit a = s·e.
    """

    rel_l2: float | None = None
    cosine: float | None = None
    mse: float | None = None
    max_ulp: float | None = None
    peak: float | None = None
    scale: float | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named set of tolerances. ``budget`` says whether recorded budgets come first.

    ``table`` is keyed ``dtype/op``, ``dtype/*``, ``*/op`` or ``*/*``, the first found holds.
    """

    name: str
    table: dict[str, Limits]
    budget: bool = False

    def limits(self, dtype: str, op: str) -> Limits:
        """Return the limits for an op's output in ``dtype``; raises UsageError for none."""
        for key in (f"{dtype}/{op}", f"{dtype}/*", f"*/{op}", "*/*"):
            if key in self.table:
                return self.table[key]
        message = f"tolerance {self.name}: it says nothing of {dtype} outputs of {op}"
        raise UsageError(message, hint='add a table ["*/*"]')


class Check(msgspec.Struct, frozen=True):
    """One limit held against a tensor. ``share`` is the part of the tolerance used: within
    it up to 1; NaN and Inf are not."""

    metric: str
    value: float
    limit: float
    share: float

    @property
    def ok(self) -> bool:
        return self.share <= 1.0


def share_of(value: float, limit: float) -> float:
    """Return value / limit; 0 / 0 is 0, anything else over 0 is Inf."""
    if limit == 0.0:
        return 0.0 if value == 0.0 else math.inf
    return value / limit


class Verdict(NamedTuple):
    """Whether a tensor passes, and the largest share of a tolerance that it uses."""

    ok: bool
    share: float


def verdict(checks: Sequence[Check], *, finite: bool = True) -> Verdict:
    """Decide on a tensor: NaN and Inf are where they belong, something was asked of it, and no
    check uses more than its limit."""
    share = max((check.share for check in checks), default=math.inf) if finite else math.inf
    return Verdict(finite and bool(checks) and all(check.ok for check in checks), share)
