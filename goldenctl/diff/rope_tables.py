"""Whether a rotation that is wrong used tables that are more exact than PyTorch's.

transformers rounds each position times an inverse frequency to float32, so a float32 golden
holds angles that err by up to half a unit; an engine that makes its own tables in float64
differs from it, ever more with the position, and is no less right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.graph import Op, decoder, recorded_path
from goldenctl.model.rope import exact_rope_tables

_SOURCES = {"q_rope": ("q_norm", "q_proj"), "k_rope": ("k_norm", "k_proj"), "key": ("k_norm",)}
_LESS = 0.2  # what is left of the error
_TITLES = {True: "RoPE tables in float64", False: "RoPE angles in float64"}


def exact_tables(
    golden: GoldenFile, run: GoldenFile, info: TensorInfo, actual: NDArray[Any], scope: str
) -> str:
    """Return what is to be said of a rotation by more exact tables; empty where it is none.

    It is one when such tables, applied to what the op was given, give ``actual`` up to rounding.
    """
    given = _given(golden, run, info, scope)
    if given is None or actual.shape != info.shape:
        return ""
    found, wanted = actual.astype(np.float64), golden.map(info.name).astype(np.float64)
    before = float(np.linalg.norm(found - wanted))
    eps = DTYPES[run.recipe.get("dtype", info.dtype)].eps
    if golden.kind != "golden":  # a run has no positions
        return ""
    positions = golden.map(recorded_path(info.place.group, "position_ids"))
    count = int(positions.max(initial=0)) + 1
    op = _rope_op(golden, info, count)
    for exact, title in _TITLES.items():
        tables = exact_rope_tables(golden.config, count, op.inputs[-1], exact_frequencies=exact)
        rotated = _rotated(given, positions, tables, pairs=op.attrs["algo"])
        left = float(np.linalg.norm(found - rotated))
        if left <= min(_LESS * before, eps * float(np.linalg.norm(found))):
            part = 1.0 - (left / before) ** 2
            return (
                f"{title}, where PyTorch rounds each angle to float32: reproduced, they explain "
                f"{part:.1%} of the error"
            )
    return ""


def _rope_op(golden: GoldenFile, info: TensorInfo, positions: int) -> Op:
    """The rotation whose result a tensor is."""
    sublayers = decoder(golden.config, logits="none", positions=positions)
    return next(s for s in sublayers if s.name == info.sublayer).producer(info.tap)


def _given(
    golden: GoldenFile, run: GoldenFile, info: TensorInfo, scope: str
) -> NDArray[np.float64] | None:
    """What the op was given: recorded in scope ``op``, else what the run itself has."""
    folder = info.place.group
    names = [f"{folder}/{tap}" for tap in _SOURCES.get(info.tap, ())]
    name = next((name for name in names if name in golden.tensors), None)
    file = golden if scope == "op" else run
    if name is None or name not in file.tensors or file.tensors[name].shape != info.shape:
        return None
    return file.verify(name).astype(np.float64)


def _rotated(
    x: NDArray[np.float64],
    positions: NDArray[np.int32],
    tables: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    pairs: str,
) -> NDArray[np.float64]:
    """[B, S, H, D], [B, S], two of [P, R/2]: the first R of each head rotated, ``pairs`` as the
    op's ``algo`` says."""
    cos, sin = (table[positions][:, :, None] for table in tables)
    rotary = 2 * cos.shape[-1]
    rotated = x.copy()
    neighbours = (slice(0, rotary, 2), slice(1, rotary, 2))
    halves = (slice(0, rotary // 2), slice(rotary // 2, rotary))
    one, other = halves if pairs == "neox" else neighbours
    first, second = x[..., one], x[..., other]
    rotated[..., one] = first * cos - second * sin
    rotated[..., other] = second * cos + first * sin
    return rotated
