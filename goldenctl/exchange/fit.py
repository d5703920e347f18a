"""Owns bringing a dump's tensor into the golden's shape: split, name axes, crop, permute, add."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, UsageError
from goldenctl.exchange.dump import DumpTensor
from goldenctl.exchange.namemap import Entry, product
from goldenctl.golden.dtypes import DTYPES
from goldenctl.golden.schema import TensorInfo

Sizes = Mapping[str, int]


def case_sizes(tensors: Mapping[str, TensorInfo], case: str, step: str) -> dict[str, int]:
    """Return the size of every dimension label in one step of a case."""
    sizes = {"last_token": 1}
    for info in tensors.values():
        if (
            info.case == case
            and info.step in (step, "")
            and info.role in ("tap", "output", "input")
        ):
            sizes |= zip(info.dims, info.shape, strict=True)
    return sizes


class Fit:
    """How one dump tensor becomes one of the golden's; made from shapes alone.

    Raises UsageError, with the axes expected and found, when it cannot.
    """

    def __init__(self, entry: Entry, info: TensorInfo, tensor: DumpTensor, sizes: Sizes) -> None:
        self._info = info
        self._tensor = tensor
        self._entry = entry
        self._dtype = _dtype(entry, tensor)
        try:
            self._cut = self._split(sizes)
            self._labels, self._crops = self._axes(sizes)
        except KeyError as error:
            message = f"{self._where}: the golden has no dimension {error}"
            known = ", ".join(sorted(sizes))
            raise UsageError(message, hint=f"it has {known}") from error

    @property
    def dtype(self) -> str:
        """The type of the values in the run: the engine's own, or the one that is claimed."""
        return self._dtype

    def values(self) -> NDArray[Any]:
        """Read the tensor; return it contiguous, in the golden's shape and of ``dtype``."""
        array = self._tensor.read()
        if array.dtype.kind in "uV":
            array = array.view(np.uint16).view(ml_dtypes.bfloat16)
        if self._cut is not None:
            array = array[..., self._cut]
        if self._labels is None:
            return np.ascontiguousarray(array).reshape(self._info.shape)
        for axis, size in enumerate(self._crops):
            array = np.take(array, range(size), axis) if size < array.shape[axis] else array
        array = array.reshape([size for _, size in self._labels])
        names = [name for name, _ in self._labels]
        wanted = list(self._info.dims)
        if "last_token" in wanted and "token" in names:
            at = names.index("token")
            array = array.take([array.shape[at] - 1], at)
            names[at] = "last_token"
        order = [names.index(dim) for dim in wanted if dim in names]
        ones = [at for at, name in enumerate(names) if name == "1"]
        array = array.transpose(order + ones)
        return np.ascontiguousarray(array).reshape(self._info.shape)

    @property
    def _where(self) -> str:
        return f"{self._tensor.where}: tensor {self._tensor.name!r} for {self._info.name}"

    def _split(self, sizes: Sizes) -> slice | None:
        if not self._entry.split:
            return None
        parts = [product(axis, sizes) for axis in self._entry.split]
        last = self._tensor.shape[-1] if self._tensor.shape else 0
        if sum(parts) != last:
            message = f"{self._where}: its last axis has {last}, split gives {parts}"
            raise UsageError(message)
        start = sum(parts[: self._entry.part])
        return slice(start, start + parts[self._entry.part])

    def _shape(self) -> tuple[int, ...]:
        shape = self._tensor.shape
        return shape if self._cut is None else (*shape[:-1], self._cut.stop - self._cut.start)

    def _axes(self, sizes: Sizes) -> tuple[list[tuple[str, int]] | None, list[int]]:
        """Return (label, size) of every axis once products are taken apart, and the sizes to
        crop to; None where the golden's own axes, some of them merged, are what is there."""
        shape, info = self._shape(), self._info
        own = dict(zip(info.dims, info.shape, strict=True))
        if self._entry.axes is None:
            if not is_merged(shape, info.shape):
                self._refuse(shape, [f"{dim} {size}" for dim, size in own.items()], "name its axes")
            return None, []
        known = {**sizes, **own}
        axes = [[term.strip() for term in axis.split("*")] for axis in self._entry.axes]
        expected = [math.prod(product(term, known) for term in axis) for axis in axes]
        fits = len(shape) == len(axes) and all(
            actual == size or (axis[0] in self._entry.crop and len(axis) == 1 and actual > size)
            for actual, size, axis in zip(shape, expected, axes, strict=True)
        )
        shown = [f"{axis} {n}" for axis, n in zip(self._entry.axes, expected, strict=True)]
        if not fits:
            self._refuse(shape, shown, "correct axes in the map")
        labels = [(term, product(term, known)) for axis in axes for term in axis]
        names = ["last_token" if n == "token" and "last_token" in own else n for n, _ in labels]
        left_out = [dim for dim, size in own.items() if dim not in names and size != 1]
        foreign = [name for name in names if name not in own and name != "1"]
        if left_out or foreign or len(set(names) - {"1"}) != len(names) - names.count("1"):
            self._refuse(shape, [f"{dim} {size}" for dim, size in own.items()], "correct axes")
        return labels, expected

    def _refuse(self, shape: tuple[int, ...], expected: list[str], hint: str) -> None:
        message = f"{self._where}: has shape {list(shape)}, expected [{', '.join(expected)}]"
        raise UsageError(message, hint=hint)


def is_merged(shape: tuple[int, ...], golden: tuple[int, ...]) -> bool:
    """Tell whether ``shape`` is the golden's with neighbouring axes merged and ones left out."""
    if shape == golden:
        return True
    wanted = [size for size in golden if size != 1]
    for size in (size for size in shape if size != 1):
        got = 1
        while wanted and got < size:
            got *= wanted.pop(0)
        if got != size:
            return False
    return not wanted


def convert(values: NDArray[Any], dtype: str, where: str) -> NDArray[Any]:
    """Return values as ``dtype``; DamagedError unless that changes none of them."""
    target = DTYPES[dtype].numpy
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(target)
    same = (rounded.astype(values.dtype) == values) | (np.isnan(values) & np.isnan(rounded))
    if not same.all():
        count = int(values.size - np.count_nonzero(same))
        message = f"{where}: {count} of {values.size} values are not {dtype} numbers"
        raise DamagedError(message, hint="leave dtype out of the map")
    return rounded


def _dtype(entry: Entry, tensor: DumpTensor) -> str:
    where = f"{tensor.where}: tensor {tensor.name!r}"
    if tensor.dtype in ("uint16", "void16"):
        if entry.dtype != "bfloat16":
            message = f"{where}: has type {tensor.dtype}, which may be bits of bfloat16"
            raise UsageError(message, hint='say dtype = "bfloat16" in the map if it is')
        return "bfloat16"
    if tensor.dtype not in DTYPES or not DTYPES[tensor.dtype].is_float:
        message = f"{where}: has type {tensor.dtype}, which cannot be compared"
        raise UsageError(message, hint="dump it as float32, float16 or bfloat16")
    return entry.dtype or tensor.dtype
