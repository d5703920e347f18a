"""Small golden files for tests, made with the writer alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.golden.schema import SublayerInfo, TensorSpec
from goldenctl.golden.writer import GoldenWriter

GROUP = "cases/a/steps/00/embedding"
OUTPUT = f"{GROUP}/output"
IDS = "cases/a/token_ids"
Values = NDArray[np.generic]


def spec(name: str, dtype: str, shape: tuple[int, ...], role: str = "tap") -> TensorSpec:
    dims = ("batch", "token", "head", "head_dim", "vocab")[: len(shape)]
    return TensorSpec(name, dtype, shape, dims, role, "linear" if role == "tap" else "")


def bits(values: Values) -> memoryview:
    return memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))


def write_file(
    path: Path,
    values: Mapping[str, Values],
    *,
    links: Mapping[str, str] | None = None,
    sublayers: Sequence[SublayerInfo] = (),
    kind: str = "golden",
    recipe: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Write tensors and return their offsets."""
    tensors = [spec(name, dtype_name(array), array.shape) for name, array in values.items()]
    groups = [info.name for info in sublayers]
    with GoldenWriter(
        path, kind=kind, recipe=recipe or {}, tensors=tensors, links=links or {}, groups=groups
    ) as writer:
        for name, array in values.items():
            writer.write(name, bits(array))
        writer.seal(sublayers=sublayers)
        return writer.offsets


def dtype_name(array: Values) -> str:
    return next(d.name for d in DTYPES.values() if d.numpy == array.dtype)


def small_file(path: Path) -> Path:
    """Write a golden of token ids and one output, with the link between them."""
    values: dict[str, Values] = {
        IDS: np.arange(6, dtype=np.int32).reshape(2, 3),
        OUTPUT: np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4),
    }
    links = {f"{GROUP}/input": IDS}
    write_file(path, values, links=links, sublayers=[SublayerInfo(GROUP, 7)])
    return path
