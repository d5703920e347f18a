"""Goldens and runs in Python: ``goldenctl.open`` and the lazy tensors that it gives.

Values come as NumPy arrays (bfloat16 as ``ml_dtypes.bfloat16``); PyTorch is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError, printable
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.find import NoSuchTensor, find
from goldenctl.golden.outline import Section, outline
from goldenctl.golden.schema import (
    BESIDE,
    BUDGET_SCOPES,
    BUDGET_STATISTICS,
    SublayerInfo,
    TensorInfo,
    budget_path,
)
from goldenctl.places import place, place_of, step_number, step_path
from goldenctl.records.units import human_bytes, plural

_SHOWN_TAPS = 6
Index = Any  # whatever NumPy takes between brackets


def open(path: str | PathLike[str]) -> TensorFile:
    """Open a golden or a run, to look its tensors up by name.

    The file's structure and its metadata are checked now; a tensor's bytes are read when you
    ask for them. Nothing has to be closed. Raises UsageError when there is no such file or it is
    an archive that ``export`` wrote, DamagedError when it is not a complete golden or run.
    """
    return TensorFile(open_golden(Path(path)))


class LazyTensor:
    """One tensor of a golden or run. Its values are read when you index it or ask for them.

    ``tensor[0, -1]`` reads that part alone into a new array. ``tensor.numpy()`` and
    ``np.asarray(tensor)`` give all of it, after its bytes were found to match their digest.
    """

    def __init__(self, file: GoldenFile, info: TensorInfo) -> None:
        self._file = file
        self._info = info

    @property
    def name(self) -> str:
        """The full name, such as ``cases/default/steps/00/layers/03/attention/q_proj``."""
        return self._info.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._info.shape

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes, such as ``("batch", "token", "head", "head_dim")``."""
        return self._info.dims

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type; that of ``ml_dtypes`` where NumPy has none of its own."""
        return DTYPES[self._info.dtype].numpy

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._info.nbytes // self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._info.nbytes

    @property
    def op(self) -> str:
        """The op that computed it, such as ``rms_norm``; empty for inputs and constants."""
        return self._info.op

    @property
    def role(self) -> str:
        """``input``, ``tap``, ``output``, ``constant``, ``composed``, ``budget`` or ``oracle``."""
        return self._info.role

    @property
    def digest(self) -> str:
        """The digest of its bytes as stored: ``algorithm:hex``."""
        return self._info.digest

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Read a part into a new array; its digest is not checked, since that needs all bytes.

        Raises IndexError as NumPy does, and DamagedError when the file has become shorter.
        """
        return np.array(self._file.map(self.name)[index])

    def numpy(self) -> NDArray[Any]:
        """Return all values, mapped from the file read-only, without a copy.

        Raises DamagedError when the bytes do not match their digest.
        """
        return np.asarray(self._file.verify(self.name))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            message = f"{self.name} is a scalar, which has no length"
            raise TypeError(message)
        return self.shape[0]

    @property
    def budget(self) -> Budget | None:
        """What rounding may do to each of its rows; None if ``record`` had no ``--oracle``."""
        own = self._info.dtype
        name = budget_path(self.name, recorded=own, actual=own)
        return Budget(self._file, self._file.info(name)) if name in self._file.tensors else None

    def __repr__(self) -> str:
        axes = ", ".join(f"{d} {s}" for d, s in zip(self.dims, self.shape, strict=True))
        op = f", op {self.op}" if self.op else ""
        return f"<{place(self.name).short}: {self._info.dtype} [{axes}]{op}>"


class Budget:
    """A tensor's rounding budget: four numbers for each row, in up to three scopes.

    A row is the last axis of the tensor; docs/budgets.md says what the numbers mean. ``scopes``
    and ``statistics`` name what is there.
    """

    statistics = BUDGET_STATISTICS

    def __init__(self, file: GoldenFile, info: TensorInfo) -> None:
        self.tensor = LazyTensor(file, info)
        self.scopes = BUDGET_SCOPES[: info.shape[0]]

    def __call__(self, statistic: str, scope: str = "op") -> NDArray[np.float32]:
        """Return one number a row, in the tensor's shape without its last axis.

        Raises UsageError for a scope or statistic that is not there.
        """
        for word, known in ((scope, self.scopes), (statistic, self.statistics)):
            if word not in known:
                message = f"{self.tensor.name}: there is no {word!r}"
                raise UsageError(message, hint=f"it has {', '.join(known)}")
        row = self.scopes.index(scope), ..., self.statistics.index(statistic)
        return self.tensor[row]

    def __repr__(self) -> str:
        rows = "×".join(map(str, self.tensor.shape[1:-1]))
        return f"<budget of {rows} rows: {', '.join(self.statistics)} in {', '.join(self.scopes)}>"


class Step(Mapping[str, LazyTensor]):
    """One forward pass: its tensors by their short names, ``layers.03.attention.q_proj``."""

    def __init__(self, file: GoldenFile, case: str, number: int) -> None:
        self.case = case
        self.number = number
        self._file = file
        self._names = _short_names(file, step_path(case, number))

    def __getitem__(self, name: str) -> LazyTensor:
        if name not in self._names:
            at = f"{self.case}/{self.number:02d}"
            message = f"{self._file.path}: step {at} has no tensor {name}"
            raise NoSuchTensor(message, hint="iterate over the step to see its names")
        return LazyTensor(self._file, self._file.info(self._names[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<step {self.case}/{self.number:02d}: {len(self):,} tensors>"


class TensorFile(Mapping[str, LazyTensor]):
    """A golden or a run: a mapping from names to tensors, in the order they were computed.

    Iteration gives full names. A tensor is found by its full name, by a report's name for it
    (``layers.03.attention.q_proj``), or by any ending that only one name has; links such as
    ``layers.03.attention.input`` are followed. Where several steps have the tensor, say which:
    ``file["default/01: layers.03.attention.q_proj"]`` or ``file.step(1)[...]``. Budgets and
    truths are not iterated over: see ``LazyTensor.budget``.
    """

    def __init__(self, file: GoldenFile) -> None:
        self._file = file

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def kind(self) -> str:
        """``golden`` or ``run``."""
        return self._file.kind

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What was recorded from what, or replayed how; docs/file-format.md has its keys."""
        return self._file.recipe

    @property
    def sublayers(self) -> Mapping[str, SublayerInfo]:
        """By full path, in execution order: each sublayer's time, and how it failed in a run."""
        return self._file.sublayers

    @property
    def content_digest(self) -> str:
        """One digest over all tensors."""
        return self._file.content_digest

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """The names of the inputs that were recorded."""
        return tuple(dict.fromkeys(step.case for step in self.steps))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The forward passes of all cases, in order: the prompt, then each decoded token."""
        paths = dict.fromkeys(info.place.step_path for info in self._file.tensors.values())
        return tuple(
            Step(self._file, place_of(path).case, step_number(path)) for path in paths if path
        )

    def step(self, number: int, case: str | None = None) -> Step:
        """Return a forward pass; ``case`` may be left out where there is only one.

        Raises UsageError when there is no such step.
        """
        if case is None and len(self.cases) == 1:
            case = self.cases[0]
        for step in self.steps:
            if (step.case, step.number) == (case, number):
                return step
        message = f"{self.path}: there is no step {number} of case {case}"
        raise UsageError(message, hint=f"cases: {', '.join(self.cases)}")

    def __getitem__(self, name: str) -> LazyTensor:
        """Return a tensor; raises NoSuchTensor, a KeyError, when no or several names fit."""
        return LazyTensor(self._file, find(self._file, name))

    def __iter__(self) -> Iterator[str]:
        return (n for n, info in self._file.tensors.items() if info.role not in BESIDE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *map(_section_lines, outline(self._file))])

    def _headline(self) -> str:
        recipe = self.recipe
        model = recipe.get("model", {}).get("config", {}).get("model_type", "")
        size = sum(info.nbytes for info in self._file.tensors.values())
        said = [text for text in (model, recipe.get("dtype")) if text]
        said += [plural(len(self), "tensor"), plural(len(self.steps), "step"), human_bytes(size)]
        said += [f"faults {', '.join(recipe['faults'])}"] if recipe.get("faults") else []
        failed = sum(info.failure is not None for info in self.sublayers.values())
        said += [f"{plural(failed, 'sublayer')} failed"] if failed else []
        simulated = " (simulated: no engine computed it)" if self._file.simulated else ""
        return printable(f"{self.kind} {self.path}{simulated}: {', '.join(said)}")


def _section_lines(section: Section) -> str:
    lines = [f"{section.title}:"] if section.title else []
    for line in section.lines:
        taps = list(line.taps[:_SHOWN_TAPS])
        more = f" + {len(line.taps) - len(taps)}" if len(line.taps) > len(taps) else ""
        mark = "failed: " if line.failed else ""
        lines.append(
            f"  {mark}{line.group}  {'×'.join(map(str, line.shape))}  {' '.join(taps)}{more}"
        )
    return "\n".join(lines)


def _short_names(file: GoldenFile, step: str) -> dict[str, str]:
    """Return a step's tensors and links by their short names."""
    prefix = f"{step}/"
    own = [n for n, i in file.tensors.items() if n.startswith(prefix) and i.role not in BESIDE]
    links = [name for name in file.aliases if name.startswith(prefix)]
    return {name.removeprefix(prefix).replace("/", "."): name for name in [*own, *links]}
