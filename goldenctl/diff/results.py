"""What a verdict says of one tensor: the entry of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from goldenctl.golden.schema import TensorInfo
from goldenctl.records.report import (
    CRASHED,
    PASSED,
    SublayerResult,
    TensorResult,
    first_wrong,
    worst_share,
)


def result_of(
    info: TensorInfo, state: str, actual: TensorInfo | None = None, **rest: Any
) -> TensorResult:
    """Return what is said of one tensor of the golden, and of the run's where it has one."""
    return TensorResult(
        name=info.name,
        sublayer=info.place.group,
        tap=info.tap,
        op=info.op,
        dtype=info.dtype,
        shape=info.shape,
        actual_shape=actual.shape if actual is not None else None,
        actual_dtype=actual.dtype if actual is not None else "",
        state=state,
        expected_ns=info.time_ns,
        actual_ns=actual.time_ns if actual is not None else 0,
        expected_iqr_ns=info.iqr_ns,
        actual_iqr_ns=actual.iqr_ns if actual is not None else 0,
        **rest,
    )


def with_tensors(sublayer: SublayerResult, tensors: Sequence[TensorResult]) -> SublayerResult:
    """Return a sublayer with other verdicts on its tensors; one that crashed stays so."""
    wrong = first_wrong(tensors, sublayer.failure)
    state = CRASHED if sublayer.state == CRASHED else "failed" if wrong else PASSED
    return replace(
        sublayer,
        state=state,
        tensors=tuple(tensors),
        first_wrong=wrong.tap if wrong else "",
        share=worst_share(list(tensors)),
    )
