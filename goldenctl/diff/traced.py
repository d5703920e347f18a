"""Runs of mode ``trace`` in a comparison: which rows there are, and how each op was by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from goldenctl.diff.padding import Padding
from goldenctl.diff.results import with_tensors
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.records.report import ALONE, NEUTRAL, PASSED, SublayerResult, TensorResult
from goldenctl.records.structure import Trace
from goldenctl.records.words import of_tolerance


def trace_of(file: GoldenFile) -> Trace | None:
    """Return what a run of mode ``trace`` says; DamagedError when it is not as it should be."""
    found = file.recipe.get("trace")
    if found is None:
        return None
    try:
        return msgspec.convert(found, Trace)
    except msgspec.ValidationError as error:
        message = f"{file.path}: recipe: trace: {error}"
        raise DamagedError(message, hint="trace the program again") from error


def computed_rows(trace: Trace | None, info: TensorInfo, padding: Padding) -> Padding:
    """Leave out also the rows of tokens that an engine did not compute a tensor for."""
    if trace is None or info.name not in trace.rows:
        return padding
    shape, dims = info.shape[:-1], info.dims[:-1]
    axis = next(n for n, dim in enumerate(dims) if dim in ("token", "last_token"))
    there = np.zeros(shape[axis], np.bool_)
    there[[token for token in trace.rows[info.name] if 0 <= token < shape[axis]]] = True
    across = there.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    return padding.only(np.broadcast_to(across, shape).reshape(-1))


def with_local(result: TensorResult, trace: Trace | None) -> TensorResult:
    """Add how the op was by itself; one that is wrong by itself fails, whatever a chain may do."""
    local = trace.local.get(result.name) if trace is not None else None
    if local is None:
        return result
    changed: dict[str, Any] = {"local": local}
    if not local.ok and result.state == PASSED:
        said = "within what a chain of ops allows, but wrong by itself: from what the engine gave "
        said += f"it, {of_tolerance(local.share)}"
        changed |= {"state": "failed", "message": said}
    return msgspec.structs.replace(result, **changed)


def spare_inherited(
    sublayers: Sequence[SublayerResult], trace: Trace | None
) -> list[SublayerResult]:
    """Judge what is beyond a chain's budget in float16 by how each op is by itself, where nothing
    else could have come to it: no structure is wrong, and every op is right by itself.

    A chain's budget is made for results that are rounded to nearest. InfiniCore 0.1.0 truncates in
    float16, each op within what that may do, and over 30 layers it comes to 2.7 times the budget.
    """
    tensors = [tensor for sublayer in sublayers for tensor in sublayer.tensors]
    compared = [tensor for tensor in tensors if tensor.state not in NEUTRAL]
    right = all(tensor.local is not None and tensor.local.ok for tensor in compared)
    if trace is None or trace.findings or not right:
        return list(sublayers)
    return [
        with_tensors(sublayer, [_spared(tensor) for tensor in sublayer.tensors])
        for sublayer in sublayers
    ]


def _spared(tensor: TensorResult) -> TensorResult:
    finite = tensor.metrics is not None and not tensor.metrics.mismatches
    if tensor.state != "failed" or tensor.actual_dtype != "float16" or not finite:
        return tensor
    assert tensor.local is not None
    note = (
        "beyond what a chain of ops that round to nearest allows; every op of the engine is right "
        "by itself, so this is what truncation adds up to"
    )
    return msgspec.structs.replace(
        tensor, state=PASSED, rule=ALONE, share=tensor.local.share, message="", note=note
    )


def for_report(trace: Trace | None) -> Trace | None:
    """Return what a report says once; the rest is with its tensors."""
    return None if trace is None else msgspec.structs.replace(trace, local={}, rows={})
