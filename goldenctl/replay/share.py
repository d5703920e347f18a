"""Sharing of a plan's sublayers among programs that run at the same time: what each
sublayer takes of memory and work, and how many threads each program may have."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import accumulate, pairwise

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError
from goldenctl.ops.plan import Plan, PlanOp, PlanSublayer
from goldenctl.places import short_name

# Guards around a tensor and what is staged between a file and the device (goldenctl-harness).
_GUARD_BYTES = 512
_STAGED_BYTES = 16 << 20


def sublayer_bytes(sublayer: PlanSublayer) -> int:
    """Estimate what a program needs to run a sublayer alone: its tensors, and three times its
    largest output, which is read back, compared and kept while it is checked.

    An engine's own workspace comes on top.
    """
    sizes = [math.prod(t.shape) * DTYPES[t.dtype].itemsize for t in sublayer.tensors]
    largest = max((sizes[op.out.tensor] for op in sublayer.ops), default=0)
    return sum(sizes) + _GUARD_BYTES * len(sizes) + 3 * largest + _STAGED_BYTES


def sublayer_work(sublayer: PlanSublayer) -> int:
    """Estimate how long a sublayer takes, in multiply-adds."""
    return sum(_op_work(op) for op in sublayer.ops)


def _op_work(op: PlanOp) -> int:
    terms = op.args[0].shape[-1] if op.op == "gemm" else 1
    if op.op == "sdpa":
        terms = 2 * op.args[1].shape[-2]
    return math.prod(op.out.shape) * terms


def shares_of(
    plan: Plan, indices: Sequence[int], *, workers: int, memory_bytes: int | None = None
) -> list[tuple[int, ...]]:
    """Share sublayers among at most ``workers`` programs; each share is in plan order.

    Sublayers of a size go to the same program, so that the sum of every program's largest is
    small; within that, work is shared evenly. There are fewer shares where ``memory_bytes``
    is not enough. Raises UsageError when a single sublayer does not fit.
    """
    sizes = {index: sublayer_bytes(plan.sublayers[index]) for index in indices}
    for count in range(min(workers, len(indices)), 0, -1):
        shares = _split(plan, sorted(indices, key=lambda index: (-sizes[index], index)), count)
        needed = sum(max(sizes[index] for index in share) for share in shares)
        if memory_bytes is None or needed <= memory_bytes:
            return shares
    largest = max(indices, key=lambda index: sizes[index])
    msg = (
        f"--memory: {short_name(plan.sublayers[largest].name)} alone needs about "
        f"{sizes[largest]:,} bytes, more than {memory_bytes:,}"
    )
    raise UsageError(msg, hint="allow more, or replay fewer tokens or layers")


def _split(plan: Plan, ordered: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cut a sequence into ``count`` runs, none empty, of about the same work."""
    done = [0, *accumulate(sublayer_work(plan.sublayers[index]) for index in ordered)]
    cuts = [0]
    for number in range(1, count):
        wanted = done[-1] * number / count
        first, last = cuts[-1] + 1, len(ordered) - (count - number)
        cuts.append(min(range(first, last + 1), key=lambda cut: abs(done[cut] - wanted)))
    cuts.append(len(ordered))
    return [tuple(sorted(ordered[a:b])) for a, b in pairwise(cuts)]


def thread_share(workers: int) -> dict[str, str]:
    """Return the environment that gives each of several programs its share of the cores.

    The share is of ``$OMP_NUM_THREADS`` where that is set.
    """
    if workers < 2:
        return {}
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(given) if given.isdigit() else len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": str(max(1, cores // workers))}
