"""The weights of quantised linear layers as float32, each format by its own arithmetic.

What a checkpoint holds for a linear layer ``X`` are several tensors, ``X.qweight``, ``X.scales``
and so on; a ``Scheme`` says which, and makes the weight ``[out, in]`` of them. Integers times a
16-bit scale are exact in float32; other products are rounded once.

Formats: transformers' fine-grained FP8, compressed-tensors 0.20, GPTQ (the layouts "gptq" and
"gptq_v2") and AWQ (the layout "gemm").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, UsageError
from goldenctl.model.fields import is_int, show

Json = Mapping[str, Any]
Array = NDArray[Any]
Floats = NDArray[np.float32]

SUPPORTED = "fp8, gptq, awq and compressed-tensors"
_WORD_BITS = 32
# Of the eight columns in a word of AWQ, the one in each four bits, lowest first.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Parts:
    """What a checkpoint holds for one linear layer, by the ends of the names."""

    def __init__(self, stem: str, arrays: Mapping[str, Array]) -> None:
        self.stem = stem
        self._arrays = arrays

    def __contains__(self, end: str) -> bool:
        return end in self._arrays

    def __getitem__(self, end: str) -> Array:
        """Return a tensor; DamagedError when it is not there."""
        if end not in self._arrays:
            self.fail(f"has no {self.stem}.{end}")
        return self._arrays[end]

    def shaped(self, end: str, *allowed: tuple[int, ...]) -> Array:
        """Return a tensor of one of the shapes ``allowed``; DamagedError when it has another."""
        array = self[end]
        if array.shape not in allowed:
            wanted = " or ".join(str(list(shape)) for shape in allowed)
            self.fail(f"{self.stem}.{end} is {list(array.shape)}, expected {wanted}")
        return array

    def fail(self, problem: str) -> NoReturn:
        """Raise DamagedError for this layer."""
        message = f"quantised weight {self.stem}: {problem}"
        raise DamagedError(message)


@dataclass(frozen=True)
class Scheme:
    """How a checkpoint's linear layers are quantised.

    ``weight`` ends the name of the tensor that makes a layer a quantised one, ``parts`` those of
    the others that belong to it, of which the engine alone reads some. ``shape`` and ``values``
    are those of the weight.
    """

    title: str
    weight: str
    parts: tuple[str, ...]
    shape: Callable[[Parts], tuple[int, ...]]
    values: Callable[[Parts], Floats]


def scheme_of(config: Json, where: str) -> Scheme:
    """Return the scheme that a ``quantization_config`` describes.

    Raises UsageError, naming ``where`` and the key, for one that is not supported.
    """
    method = config.get("quant_method")
    make = _METHODS.get(method) if isinstance(method, str) else None
    if make is None:
        refuse(where, "quant_method", method, SUPPORTED)
    return make(config, where)


def refuse(where: str, key: str, value: object, supported: str) -> NoReturn:
    """Raise UsageError for a value of ``quantization_config`` that is not supported."""
    message = f"{where}: quantization_config {key} {show(value)} is not supported"
    raise UsageError(message, hint=f"supported: {supported}")


# --- 8-bit floats, and 8-bit integers ---


def _fp8(config: Json, where: str) -> Scheme:
    block = config.get("weight_block_size")
    if block is None:
        return _scaled("fp8, a scale per tensor", "weight_scale_inv", None)
    if not (
        isinstance(block, list) and len(block) == 2 and all(is_int(n) and n > 0 for n in block)
    ):
        refuse(where, "weight_block_size", block, "two sizes, such as [128, 128]")
    title = f"fp8, a scale per block of {block[0]} x {block[1]}"
    return _scaled(title, "weight_scale_inv", (block[0], block[1]))


def _scaled(title: str, scale: str, block: tuple[int, int] | None) -> Scheme:
    """Values times a scale: one for all, one a row, or one a block of rows and columns."""

    def values(parts: Parts) -> Floats:
        weight = parts["weight"].astype(np.float32)
        rows, columns = weight.shape
        if block is None:
            scales = parts.shaped(scale, (), (1,), (1, 1), (rows, 1)).astype(np.float32)
            return weight * scales
        high, wide = block
        grid = (math.ceil(rows / high), math.ceil(columns / wide))
        scales = parts.shaped(scale, grid).astype(np.float32)
        # Row by row of the grid, so that nothing of the weight's size is made beside it.
        for i in range(grid[0]):
            weight[i * high : (i + 1) * high] *= np.repeat(scales[i], wide)[:columns]
        return weight

    others = (scale, "activation_scale", "input_scale")
    return Scheme(title, "weight", others, lambda parts: parts["weight"].shape, values)


# --- integers packed into words ---


def unpacked(words: Array, bits: int, axis: int) -> NDArray[np.int32]:
    """Return the unsigned numbers of ``bits`` bits in 32-bit words along ``axis``, lowest first."""
    count = _WORD_BITS // bits
    shifts = (np.arange(count, dtype=np.uint32) * bits).reshape(-1, *[1] * (words.ndim - axis - 1))
    plain = np.expand_dims(words.view(np.uint32), axis + 1) >> shifts & ((1 << bits) - 1)
    shape = list(words.shape)
    shape[axis] *= count
    return plain.reshape(shape).astype(np.int32)


def _gptq(config: Json, where: str) -> Scheme:
    bits = config.get("bits")
    if bits not in (2, 4, 8):
        refuse(where, "bits", bits, "2, 4, 8")
    layout = config.get("checkpoint_format", "gptq")
    if layout not in ("gptq", "gptq_v2"):
        refuse(where, "checkpoint_format", layout, "gptq, gptq_v2")
    # The first layout stores z - 1, subtracted from whole words: a borrow reaches the next number.
    one = sum(1 << bits * i for i in range(_WORD_BITS // bits)) if layout == "gptq" else 0
    size = _group_size(config, "group_size", where)
    per_word = _WORD_BITS // bits

    def shape(parts: Parts) -> tuple[int, ...]:
        words, columns = parts["qweight"].shape
        return columns, words * per_word

    def values(parts: Parts) -> Floats:
        out, into = shape(parts)
        groups = 1 if size is None else math.ceil(into / size)
        q = unpacked(parts["qweight"], bits, 0)
        words = parts.shaped("qzeros", (groups, out // per_word)).view(np.uint32)
        zeros = unpacked(words + np.uint32(one), bits, 1)
        scales = parts.shaped("scales", (groups, out)).astype(np.float32)
        of_row = _group_of_row(parts, "g_idx", into, size, groups)
        return np.ascontiguousarray(((q - zeros[of_row]) * scales[of_row]).T, np.float32)

    title = f"gptq, {bits} bits, {_grouped(size)}"
    return Scheme(title, "qweight", ("qzeros", "scales", "g_idx"), shape, values)


def _awq(config: Json, where: str) -> Scheme:
    bits = config.get("bits", config.get("w_bit"))
    if bits != 4:
        refuse(where, "bits", bits, "4")
    layout = config.get("version", "gemm")
    if str(layout).lower() != "gemm":
        refuse(where, "version", layout, "gemm")
    key = "group_size" if "group_size" in config else "q_group_size"
    size = _group_size(config, key, where)
    places = np.argsort(_AWQ_ORDER)

    def in_order(words: Array) -> NDArray[np.int32]:
        mixed = unpacked(words, 4, 1)
        return mixed.reshape(len(mixed), -1, 8)[:, :, places].reshape(mixed.shape)

    def shape(parts: Parts) -> tuple[int, ...]:
        rows, words = parts["qweight"].shape
        return words * 8, rows

    def values(parts: Parts) -> Floats:
        out, into = shape(parts)
        groups = 1 if size is None else math.ceil(into / size)
        scales = parts.shaped("scales", (groups, out)).astype(np.float32)
        zeros = in_order(parts.shaped("qzeros", (groups, out // 8)))
        of_row = np.arange(into) // (size or into)
        q = in_order(parts["qweight"])
        return np.ascontiguousarray(((q - zeros[of_row]) * scales[of_row]).T, np.float32)

    title = f"awq, 4 bits, {_grouped(size)}"
    return Scheme(title, "qweight", ("qzeros", "scales"), shape, values)


def _compressed(config: Json, where: str) -> Scheme:
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        refuse(where, "config_groups", groups, "one group")
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        refuse(where, "weights", weights, "an object")
    layout = (group.get("format") if isinstance(group, dict) else None) or config.get("format")
    bits, size = weights.get("num_bits"), weights.get("group_size")
    if layout in ("float-quantized", "int-quantized", "naive-quantized") and bits == 8:
        kind = "fp8" if weights.get("type") == "float" else "int8"
        block = weights.get("block_structure")
        if weights.get("strategy") == "block" and isinstance(block, list) and len(block) == 2:
            title = f"compressed-tensors {kind}, a scale per block of {block[0]} x {block[1]}"
            return _scaled(title, "weight_scale", (int(block[0]), int(block[1])))
        title = f"compressed-tensors {kind}, a scale per {weights.get('strategy')}"
        return _scaled(title, "weight_scale", None)
    if layout != "pack-quantized":
        refuse(where, "format", layout, "float-quantized, int-quantized, pack-quantized")
    if bits not in (4, 8):
        refuse(where, "num_bits", bits, "4, 8")
    per_column = not isinstance(size, int) or size < 1
    return _packed(4 if bits == 4 else 8, None if per_column else size)


def _packed(bits: int, size: int | None) -> Scheme:
    """compressed-tensors' words along the input: q plus half the range, so that it is unsigned."""
    half, per_word = 1 << bits - 1, _WORD_BITS // bits

    def shape(parts: Parts) -> tuple[int, ...]:
        said = parts.shaped("weight_shape", (2,))
        return int(said[0]), int(said[1])

    def values(parts: Parts) -> Floats:
        out, into = shape(parts)
        packed = parts.shaped("weight_packed", (out, math.ceil(into / per_word)))
        q = unpacked(packed, bits, 1)[:, :into] - half
        groups = 1 if size is None else math.ceil(into / size)
        scales = parts.shaped("weight_scale", (out, groups)).astype(np.float32)
        of_column = _group_of_row(parts, "weight_g_idx", into, size, groups)
        if "weight_zero_point" in parts:
            words = parts.shaped("weight_zero_point", (math.ceil(out / per_word), groups))
            q = q - (unpacked(words, bits, 0)[:out] - half)[:, of_column]
        return np.asarray(q * scales[:, of_column], np.float32)

    title = f"compressed-tensors int{bits}, {_grouped(size)}"
    others = ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "input_scale")
    return Scheme(title, "weight_packed", others, shape, values)


def _group_of_row(
    parts: Parts, end: str, rows: int, size: int | None, groups: int
) -> NDArray[np.int64]:
    """The group of each input row, which the file may say itself (activation order)."""
    if end not in parts:
        return np.arange(rows) // (size or rows)
    said = parts.shaped(end, (rows,)).astype(np.int64)
    if rows and not 0 <= said.min() <= said.max() < groups:
        parts.fail(f"{parts.stem}.{end} names group {said.max()} of {groups}")
    return said


def _group_size(config: Json, key: str, where: str) -> int | None:
    """How many input rows share a scale; None for all of them."""
    if key not in config:
        message = f"{where}: quantization_config has no group_size"
        raise UsageError(message, hint="add it as it was used: -1 or a number of rows")
    size = config[key]
    if size == -1:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        refuse(where, key, size, "-1 or a number of rows")
    return size


def _grouped(size: int | None) -> str:
    return "a scale per column" if size is None else f"groups of {size}"


_METHODS: dict[str, Callable[[Json, str], Scheme]] = {
    "fp8": _fp8,
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _compressed,
}
