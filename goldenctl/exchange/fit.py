"""How a dump's tensors become one of the golden's: cut, join, name axes, crop, permute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError
from goldenctl.exchange.dump_tensor import DumpTensor
from goldenctl.exchange.namemap import Entry, product
from goldenctl.golden.schema import TensorInfo

Sizes = Mapping[str, int]
Array = NDArray[Any]


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


def tokens_before(tensors: Mapping[str, TensorInfo], case: str, step: str) -> int:
    """Return how many tokens the steps of a case before this one have."""
    found: dict[str, int] = {}
    for info in tensors.values():
        if info.case == case and info.step and info.step < step and "token" in info.dims:
            found[info.step] = info.shape[info.dims.index("token")]
    return sum(found.values())


class Fit:
    """How the tensors of a dump, one for each rank, become one of the golden's.

    It is made from shapes alone, by taking the steps on arrays that have no memory. ``start`` is
    where the step's own tokens begin in a tensor of all steps. Raises UsageError, with the axes
    expected and found, when it cannot.
    """

    def __init__(
        self,
        entry: Entry,
        info: TensorInfo,
        tensors: Sequence[DumpTensor],
        sizes: Sizes,
        *,
        start: int = 0,
    ) -> None:
        self._info = info
        self._tensors = tensors
        self._entry = entry
        self._sizes = {**sizes, **dict(zip(info.dims, info.shape, strict=True))}
        self._start = start
        for tensor in tensors:
            if tensor.problem is not None:
                raise tensor.problem
        self._dtype = _dtype(entry, tensors)
        try:
            cut = [self._cut(_stand_in(tensor.shape)).shape for tensor in tensors]
            self._arranged(_stand_in(self._joined_shape(cut)))
        except KeyError as error:
            message = f"{self._where}: the golden has no dimension {error}"
            known = ", ".join(sorted(sizes))
            raise UsageError(message, hint=f"it has {known}") from error

    @property
    def dtype(self) -> str:
        """The type of the values in the run: the engine's own, or the one that is claimed."""
        return self._dtype

    @property
    def files(self) -> set[str]:
        """The files that the tensors are in."""
        return {tensor.where for tensor in self._tensors}

    def values(self) -> Array:
        """Read the tensors; return them contiguous, in the golden's shape and of ``dtype``."""
        pieces = [self._cut(_numbers(tensor.read())) for tensor in self._tensors]
        if len(pieces) == 1:
            whole = pieces[0]
        elif self._entry.join == "sum":
            total = sum(piece.astype(np.float64) for piece in pieces)
            whole = np.asarray(total).astype(pieces[0].dtype)
        else:
            whole = np.concatenate(pieces, axis=self._entry.join)
        return np.ascontiguousarray(self._arranged(whole)).reshape(self._info.shape)

    @property
    def _where(self) -> str:
        tensor = self._tensors[0]
        return f"{tensor.where}: tensor {tensor.name!r} for {self._info.name}"

    def _cut(self, array: Array) -> Array:
        """Take one part of the last axis, of every block of it where ``per`` says how many."""
        entry = self._entry
        if not entry.split:
            return array
        whole = [product(axis, self._sizes) for axis in entry.split]
        # Of all ranks together: the blocks that the map names, or one block for each rank.
        pieces = product(entry.per, self._sizes) if entry.per else entry.ranks
        blocks = pieces // entry.ranks
        last = array.shape[-1] if array.shape else 0
        parts = [size // pieces for size in whole] if pieces else []
        uneven = pieces != blocks * entry.ranks or any(size % pieces for size in whole)
        if not blocks or uneven or sum(parts) * blocks != last:
            of = f" for each of {entry.ranks} ranks" if entry.ranks > 1 else ""
            message = f"{self._where}: its last axis has {last}, split gives {whole}{of}"
            raise UsageError(message)
        first = sum(parts[: entry.part])
        blocked = array.reshape(*array.shape[:-1], blocks, last // blocks)
        taken = blocked[..., first : first + parts[entry.part]]
        return taken.reshape(*array.shape[:-1], blocks * parts[entry.part])

    def _joined_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        first, join = shapes[0], self._entry.join
        if len(shapes) == 1:
            return first
        if join == "sum":
            fits = all(shape == first for shape in shapes)
            joined = first
        else:
            axis = join if join >= 0 else len(first) + join
            fits = 0 <= axis < len(first) and all(
                shape[:axis] + shape[axis + 1 :] == first[:axis] + first[axis + 1 :]
                for shape in shapes
            )
            total = sum(shape[axis] for shape in shapes) if fits else 0
            joined = (*first[:axis], total, *first[axis + 1 :])
        if not fits:
            shown = ", ".join(str(list(shape)) for shape in shapes[:4])
            message = f"{self._where}: the ranks have shapes {shown}, which do not join along "
            message += f"axis {join}" if join != "sum" else "none: they cannot be added"
            raise UsageError(message, hint="correct join in the map")
        return joined

    def _arranged(self, array: Array) -> Array:
        """Bring the joined array into the golden's shape."""
        entry, info = self._entry, self._info
        axes = entry.axes
        if axes is None and (entry.crop or entry.crop_front or entry.stacked):
            axes = self._own_axes(array.shape)
        if axes is None:
            if not is_merged(array.shape, info.shape):
                own = zip(info.dims, info.shape, strict=True)
                self._refuse(array.shape, [f"{d} {n}" for d, n in own], "name its axes")
            return self._permuted(array.reshape(info.shape))
        terms = [[term.strip() for term in axis.split("*")] for axis in axes]
        array = self._cropped(array, axes, terms)
        labels = [(term, product(term, self._sizes)) for axis in terms for term in axis]
        self._check_labels(array.shape, [name for name, _ in labels])
        array = array.reshape([size for _, size in labels])
        names = [name for name, _ in labels]
        if "last_token" in info.dims and "token" in names:
            at = names.index("token")
            array = array[(slice(None),) * at + (slice(array.shape[at] - 1, None),)]
            names[at] = "last_token"
        order = [names.index(dim) for dim in info.dims if dim in names]
        ones = [at for at, name in enumerate(names) if name == "1"]
        return self._permuted(array.transpose(order + ones).reshape(info.shape))

    def _own_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Return the golden's axes, without those of size one where the dump lacks them."""
        dims = ["token" if dim == "last_token" else dim for dim in self._info.dims]
        if len(shape) < len(dims):
            pairs = zip(dims, self._info.shape, strict=True)
            dims = [dim for dim, size in pairs if size != 1 or dim == "token"]
        if len(shape) != len(dims):
            own = zip(self._info.dims, self._info.shape, strict=True)
            self._refuse(shape, [f"{d} {n}" for d, n in own], "name its axes")
        return tuple(dims)

    def _cropped(self, array: Array, axes: Sequence[str], terms: Sequence[Sequence[str]]) -> Array:
        """Check the size of every axis, and cut those that may be longer."""
        entry, shape = self._entry, array.shape
        expected = [math.prod(product(term, self._sizes) for term in axis) for axis in terms]
        cuts = []
        fits = len(shape) == len(axes)
        for actual, size, axis in zip(shape, expected, axes, strict=False):
            name = axis.strip()
            start = 0
            if entry.stacked and name == "token":
                start = self._start
            elif name in entry.crop_front:
                start = actual - size
            longer = name in (*entry.crop, *entry.crop_front) or (entry.stacked and name == "token")
            fits &= actual == size or (longer and start >= 0 and start + size <= actual)
            cuts.append(slice(start, start + size))
        if not fits:
            shown = [f"{axis} {n}" for axis, n in zip(axes, expected, strict=True)]
            self._refuse(shape, shown, "correct axes in the map")
        return array[tuple(cuts)]

    def _check_labels(self, shape: tuple[int, ...], labels: Sequence[str]) -> None:
        """Refuse axes that are not the golden's, are there twice, or are left out."""
        own = dict(zip(self._info.dims, self._info.shape, strict=True))
        names = ["last_token" if n == "token" and "last_token" in own else n for n in labels]
        left_out = [dim for dim, size in own.items() if dim not in names and size != 1]
        foreign = [name for name in names if name not in own and name != "1"]
        if left_out or foreign or len(set(names) - {"1"}) != len(names) - names.count("1"):
            self._refuse(shape, [f"{dim} {size}" for dim, size in own.items()], "correct axes")

    def _permuted(self, array: Array) -> Array:
        """Bring a head's elements into the golden's order, from the layout that the map names."""
        layout, dims = self._entry.head_dim, self._info.dims
        if layout is None:
            return array
        if "head_dim" not in dims or self._sizes["head_dim"] % 2:
            message = f"{self._where}: head_dim = {layout!r} needs a golden with an even head_dim"
            raise UsageError(message, hint="take it out of the map")
        pairs = np.arange(self._sizes["head_dim"]).reshape(-1, 2)
        order = pairs.T.ravel() if layout == "interleaved" else np.argsort(pairs.T.ravel())
        if not any(array.strides):
            return array  # a stand-in, which has no elements to move
        return np.take(array, order, axis=dims.index("head_dim"))

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


def convert(values: Array, dtype: str, where: str) -> Array:
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


def _stand_in(shape: tuple[int, ...]) -> Array:
    """Return an array of a shape that takes no memory, and never does when it is reshaped."""
    return np.broadcast_to(np.zeros((), np.uint8), shape)


def _numbers(array: Array) -> Array:
    """Return values of a type that NumPy computes with: two bytes without one are bfloat16."""
    if array.dtype.kind not in "uV" or array.dtype == ml_dtypes.bfloat16:
        return array
    native = array if array.dtype.kind == "V" else array.astype(np.uint16, copy=False)
    return np.ascontiguousarray(native).view(np.uint16).view(ml_dtypes.bfloat16)


def _dtype(entry: Entry, tensors: Sequence[DumpTensor]) -> str:
    """Return the type that the run's tensor has, which all ranks must have."""
    found = [_dtype_of(entry, tensor) for tensor in tensors]
    for tensor, dtype in zip(tensors, found, strict=True):
        if dtype != found[0]:
            message = f"{tensor.where}: tensor {tensor.name!r} is {dtype}, {found[0]} in rank 0"
            raise UsageError(message, hint="dump all ranks in one type")
    return found[0]


def _dtype_of(entry: Entry, tensor: DumpTensor) -> str:
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
