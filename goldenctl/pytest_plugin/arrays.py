"""How a test's value becomes a NumPy array, and which types a golden keeps."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES

Array = NDArray[Any]
# torch's types that NumPy lacks, by the integers whose bits they share.
_TORCH_BITS = {
    "bfloat16": "int16",
    "float8_e4m3fn": "uint8",
    "float8_e5m2": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2fnuz": "uint8",
}


def to_array(value: Any) -> Array:
    """Return the values of a torch tensor on any device, or of anything NumPy understands.

    bfloat16 comes as ``ml_dtypes.bfloat16``, bits unchanged. torch is not imported: who has a
    tensor has done so. Raises TypeError for what holds no numbers.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_torch(value, torch)
    if hasattr(value, "get") and type(value).__module__.partition(".")[0] == "cupy":
        value = value.get()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and not _is_ml_float(array.dtype):
        message = f"{type(value).__name__} of {array.dtype} holds no real numbers"
        raise TypeError(message)
    return array


def kept_as(array: Array) -> Array:
    """Return the array in a type that a golden keeps, with every value unchanged.

    Small integers and booleans become int32, 8-bit floats float32. Raises TypeError for what
    does not fit, such as uint64.
    """
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.name in DTYPES:
        return native
    for wide in ("int32", "int64") if native.dtype.kind in "biu" else ("float32",):
        if np.can_cast(native.dtype, wide) or (_is_ml_float(native.dtype) and wide == "float32"):
            return native.astype(wide)
    message = f"{array.dtype} is not a type that a golden keeps ({', '.join(DTYPES)})"
    raise TypeError(message)


def _from_torch(tensor: Any, torch: Any) -> Array:
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    bits = _TORCH_BITS.get(name)
    if bits is None:
        return to_array(tensor.numpy())
    array: Array = tensor.view(getattr(torch, bits)).numpy().view(getattr(ml_dtypes, name))
    return array


def _is_ml_float(dtype: np.dtype[Any]) -> bool:
    return dtype.name.startswith(("bfloat", "float"))
