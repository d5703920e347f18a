"""What an op of a golden reads, found by name: one resolver for replay, export and emulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.graph import CACHE_LINKS, WINDOW, own_name, recorded_path
from goldenctl.ops.derived import derived_table, is_derived
from goldenctl.places import paths_so_far

_LINKS = {tap: link for link, tap in CACHE_LINKS.items()}


@dataclass(frozen=True)
class Operand:
    """An input of an op: a ``table`` that follows from the config, as that of a fault or the mask
    of a window, or the ``parts`` that the golden holds, those of all steps so far one after the
    other along the token axis."""

    golden: GoldenFile
    parts: tuple[TensorInfo, ...] = ()
    table: NDArray[Any] | None = None

    def array(self) -> NDArray[Any]:
        """Return its values as they were recorded; raises DamagedError when they are not."""
        if self.table is not None:
            return self.table
        arrays = [self.golden.verify(info.name) for info in self.parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def operand(golden: GoldenFile, path: str, name: str) -> Operand:
    """Return what an op of the sublayer at ``path`` reads as ``name``, such as ``past+k_rope``.

    Raises UsageError when it was not recorded.
    """
    if is_derived(name):
        positions = golden.info("constants/rope_cos").shape[0]
        return Operand(golden, table=derived_table(name, golden.config, positions))
    if name.startswith(WINDOW):
        return Operand(golden, table=_window(golden, path, int(name.removeprefix(WINDOW))))
    own = own_name(name)
    if own == name:
        return Operand(golden, (_recorded(golden, recorded_path(path, own)),))
    return Operand(golden, tuple(past(golden, path, own)))


def past(golden: GoldenFile, path: str, tap: str) -> list[TensorInfo]:
    """Return the keys or values of a sublayer in every step so far, [batch, token, ...] each.

    A fault may read another tap than the cache holds. Raises UsageError when one was not recorded.
    """
    kept = _LINKS.get(tap, tap)
    return [_recorded(golden, f"{at}/{kept}") for at in paths_so_far(path)]


def _window(golden: GoldenFile, path: str, window: int) -> NDArray[np.bool_]:
    """Return which tokens so far are among the last ``window`` of each of the step's: [S, T]."""
    counts = [golden.info(recorded_path(at, "position_ids")).shape[1] for at in paths_so_far(path)]
    tokens = np.arange(sum(counts))
    seen: NDArray[np.bool_] = tokens > tokens[sum(counts[:-1]) :, None] - window
    return seen


def added_mask(visible: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return what is added to scores to hide padding: 0, or the lowest number of ``dtype``."""
    kind = DTYPES[dtype]
    return np.where(visible, 0.0, kind.lowest).astype(kind.numpy)


def _recorded(golden: GoldenFile, name: str) -> TensorInfo:
    if golden.aliases.get(name, name) not in golden.tensors:
        message = f"{golden.path}: {name} was not recorded, the inputs of every op are needed"
        raise UsageError(message, hint="record it again with --taps op")
    return golden.info(name)
