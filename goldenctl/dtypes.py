"""The float and integer types that a golden can hold, and how each maps to NumPy and HDF5."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike


@dataclass(frozen=True)
class DType:
    """One storable type.

    ``eps`` is the spacing of floats just above 1.0 (2**-mantissa_bits); half of it is the
    unit roundoff. It is 0.0 for integers.
    """

    name: str
    itemsize: int
    numpy: np.dtype[np.generic]
    eps: float

    @property
    def is_float(self) -> bool:
        return self.eps > 0.0

    @property
    def lowest(self) -> float:
        """The most negative finite number of a float type."""
        return float(ml_dtypes.finfo(self.numpy).min)  # type: ignore[no-untyped-call]


def _dtype(name: str, numpy_type: DTypeLike, eps: float = 0.0) -> DType:
    numpy = np.dtype(numpy_type)
    return DType(name, numpy.itemsize, numpy, eps)


DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        _dtype("bfloat16", ml_dtypes.bfloat16, 2.0**-7),
        _dtype("float16", np.float16, 2.0**-10),
        _dtype("float32", np.float32, 2.0**-23),
        _dtype("float64", np.float64, 2.0**-52),
        _dtype("int32", np.int32),
        _dtype("int64", np.int64),
    )
}
FLOAT_DTYPES = tuple(d.name for d in DTYPES.values() if d.is_float)
