"""Each op of a traced engine judged by its own inputs, where PyTorch is there to do it."""

from __future__ import annotations

from collections.abc import Sequence

from goldenctl.errors import MissingError, require_torch
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.records.structure import Local
from goldenctl.trace.tracing import Tracing


def judge(
    tracing: Tracing, weights: Checkpoint, steps: Sequence[str]
) -> tuple[dict[str, Local], str]:
    """Return the judgement of each op of ``steps`` by tensor, or none and why not."""
    try:
        require_torch("judging each op by its own inputs")
    except MissingError as error:
        more = "where PyTorch is, goldenctl trace GOLDEN RUN --calls FILE does it"
        return {}, f"each op by itself was not judged: {error}; {more}"
    from goldenctl.reference.local import judge_locally

    return judge_locally(tracing, weights, steps), ""
