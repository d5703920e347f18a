"""Tolerances for tensors without a budget: a table by dtype and op, a named profile,
or a user's file (docs/tolerances.md gives the reasons)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError, why_no_file
from goldenctl.model.tomlfile import read_toml
from goldenctl.ops.table import OPS
from goldenctl.records.metrics import Metrics
from goldenctl.records.policy import Check, Limits, Policy, share_of

__all__ = [
    "CLASSIC",
    "Check",
    "Limits",
    "Policy",
    "Scores",
    "chain_limits",
    "check_limits",
    "default_policy",
    "limits_for",
    "load_policy",
    "scale_error",
]


class Scores(NamedTuple):
    """What an attention's softmax was given: the largest score by size, and how many keys."""

    largest: float
    keys: int


# A sum of n terms in float32 errs by up to sqrt(n) roundoffs when it is made in one go: a
# 16-bit result hides that, a float32 one does not.
_SUM_FACTOR = {"bfloat16": 1.0, "float16": 1.0, "float32": 16.0, "float64": 16.0}
# What the table's epsilons of a softmax and of what comes after it cover: exp turns an error of
# one epsilon of a score s into s epsilons, and a sum of n small terms to a large one, made in one
# go, may lose n roundoffs.
_USUAL_SCORE = 8.0
_USUAL_KEYS = 1024
_MOST_REL_L2 = 0.25  # whatever the scores are
_ROWS_SHARE = 2.0
CHAIN_FACTOR = 8.0


def default_policy() -> Policy:
    """Budgets where they were recorded, else the table by dtype and op."""
    table = {}
    for dtype, factor in _SUM_FACTOR.items():
        eps = DTYPES[dtype].eps
        for op, kind in OPS.items():
            limit = kind.epsilons * factor * eps
            table[f"{dtype}/{op}"] = (
                Limits(rel_l2=limit, peak=2 * limit, scale=factor * eps)
                if limit
                else Limits(rel_l2=0.0)
            )
    return Policy("default", table, budget=True)


CLASSIC = Policy("classic", {"*/*": Limits(cosine=0.99, mse=1e-4, rel_l2=0.01)})


def load_policy(text: str) -> Policy:
    """Return the policy ``default``, ``classic`` or that of a TOML file.

    Raises UsageError naming the file and the key that is wrong.
    """
    if text == "default":
        return default_policy()
    if text == "classic":
        return CLASSIC
    path = Path(text)
    if path.is_dir() or not path.exists():
        message = f"--tolerance {text}: {why_no_file(path)}"
        raise UsageError(message, hint="use default, classic, or a TOML file")
    try:
        table = msgspec.convert(read_toml(path), dict[str, Limits])
    except (OSError, ValueError) as error:
        message = f"{path}: not a tolerance file: {error}"
        raise UsageError(message, hint='expected tables such as ["bfloat16/rope"]') from error
    for key, limits in table.items():
        _check_entry(path, key, limits)
    return Policy(path.name, table)


def limits_for(
    policy: Policy,
    op: str,
    dtypes: tuple[str, str],
    mode: str,
    *,
    shape: Sequence[int] = (),
    scores: Scores | None = None,
) -> Limits:
    """Return the limits of an op whose golden and run have ``dtypes``: those of the coarser.

    The default table is fitted to the tensor: it is loosened in mode ``chain``, for few rows
    (all but the last axis of ``shape``), and for the softmax of unusual ``scores`` and what is
    computed from it. An exact copy may round once where the run's type is the coarser.
    """
    coarser = max(dtypes, key=lambda name: DTYPES[name].eps)
    limits = _of_any_module(coarser) if _is_module(policy, op) else policy.limits(coarser, op)
    if dtypes[0] != coarser and limits.rel_l2 == 0.0:
        limits = policy.limits(coarser, "add")
    if not policy.budget:
        return limits
    if scores is not None and limits.rel_l2:
        stretch = min(_stretch(scores, coarser, mode), _MOST_REL_L2 / limits.rel_l2)
        limits = _times(limits, stretch)
    limits = _for_rows(limits, math.prod(shape[:-1]))
    return chain_limits(limits) if mode == "chain" else limits


def _is_module(policy: Policy, op: str) -> bool:
    """Whether the default table is asked for a module's class, of which it knows nothing."""
    return policy.budget and op not in OPS


def _of_any_module(dtype: str) -> Limits:
    """Twice as wide as the widest op of the table: what is inside is not known."""
    widest = 2.0 * max(kind.epsilons for kind in OPS.values())
    limit = widest * _SUM_FACTOR[dtype] * DTYPES[dtype].eps
    return Limits(rel_l2=limit, peak=2 * limit)


def _stretch(scores: Scores, dtype: str, mode: str) -> float:
    """How much wider the limits after a softmax are than the table's. In mode ``op`` the scores
    are the golden's; 16-bit results hide what a sum loses."""
    by_size = 1.0 if mode == "op" else scores.largest / _USUAL_SCORE
    by_sum = scores.keys / _USUAL_KEYS if _SUM_FACTOR[dtype] > 1.0 else 1.0
    return max(1.0, by_size, by_sum)


def _for_rows(limits: Limits, rows: int) -> Limits:
    """The error of one row may lie along the row, where one channel is most of it; those of
    many rows are independent, but for a few that share their cause."""
    if limits.scale is None or limits.rel_l2 is None:
        return limits
    return msgspec.structs.replace(
        limits, scale=max(limits.scale, _ROWS_SHARE * limits.rel_l2 / math.sqrt(max(rows, 1)))
    )


def chain_limits(limits: Limits) -> Limits:
    """Loosen limits for a chain replay, where every op before adds its error."""
    return _times(limits, CHAIN_FACTOR)


def _times(limits: Limits, factor: float) -> Limits:
    """All limits ``factor`` times as wide, but for the cosine."""
    grown = {
        name: value * factor
        for name, value in msgspec.structs.asdict(limits).items()
        if value is not None and name != "cosine"
    }
    return Limits(**{**grown, "cosine": limits.cosine})


def check_limits(metrics: Metrics, limits: Limits) -> Iterator[Check]:
    """Hold every limit that is asked for against the metrics."""
    upper = {
        "rel_l2": metrics.rel_l2,
        "mse": metrics.mse,
        "max_ulp": float(metrics.max_ulp),
        "peak": share_of(metrics.max_abs_error, metrics.max_expected),
        "scale": scale_error(metrics),
    }
    for name, value in upper.items():
        limit = getattr(limits, name)
        if limit is not None:
            yield Check(name, value, limit, share_of(value, limit))
    if limits.cosine is not None:
        share = share_of(1.0 - metrics.cosine, 1.0 - limits.cosine)
        yield Check("cosine", metrics.cosine, limits.cosine, share)


def scale_error(metrics: Metrics) -> float:
    """|s - 1| of the best fit a = s·e: noise leaves it near 0, a wrong scale does not."""
    if metrics.rel_l2 == 0.0:
        return 0.0
    return abs(metrics.cosine * share_of(metrics.norm_actual, metrics.norm_expected) - 1.0)


def _check_entry(path: Path, key: str, limits: Limits) -> None:
    dtype, slash, op = key.partition("/")
    known_op = op in ("*", *OPS)
    if not slash or dtype not in ("*", *DTYPES) or not known_op:
        message = f"{path}: {key!r} is not DTYPE/OP, such as bfloat16/rope, float32/* or */*"
        raise UsageError(message, hint=f"ops: {', '.join(OPS)}")
    values = [v for v in msgspec.structs.asdict(limits).values() if v is not None]
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        message = f"{path}: {key!r} needs at least one limit, each finite and not negative"
        raise UsageError(message)
    if limits.cosine is not None and limits.cosine > 1:
        message = f"{path}: {key!r}: expected a cosine of at most 1, got {limits.cosine:g}"
        raise UsageError(message, hint="0.99 means 99 percent")
