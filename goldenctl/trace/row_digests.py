"""The digests of a checkpoint's rows in each dtype that an engine may hold them in.

Weights that tensor-parallel ranks split along columns are there in such blocks, too. What was
digested once is read from the cache as long as the checkpoint's fingerprint is the same.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.atomic import write_whole
from goldenctl.digests import SHA256, hex_of, of_text
from goldenctl.dtypes import DTYPES
from goldenctl.errors import GoldenctlError
from goldenctl.folders import cache_folder
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.safetensors_header import DTYPE_OF_TAG
from goldenctl.trace.digest import DigestRows, Digests, digest_rows

# What engines hold weights in, whatever the checkpoint has.
ENGINE_DTYPES = ("float32", "bfloat16", "float16")
# What ranks split along columns, because the input is split already; and into how many blocks.
_SPLIT = (".o_proj.weight", ".down_proj.weight")
_RANKS = (2, 4, 8)
_LEAST_BYTES = 16  # a shorter row may be equal by chance
_CAST_BYTES = 1 << 22  # of rows that are cast together
_CACHED = 8  # checkpoints
_VERSION = 2  # of the digests and their order


@dataclass(frozen=True)
class Rows:
    """The digests of one tensor's rows, or of a block of its columns, in one dtype."""

    tensor: str
    dtype: str
    first_column: int
    row_bytes: int
    digests: Digests


def checkpoint_rows(
    checkpoint: Checkpoint,
    digest: DigestRows = digest_rows,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Rows]:
    """Return all rows of all weights that have a dtype of floats.

    Reads the whole checkpoint, unless the cache has its digests.
    """
    place = _cache_place(checkpoint)
    parts = list(_parts(checkpoint))
    found = None if place is None else _cached(place, sum(part.rows for part in parts))
    if found is None:
        notify(f"digesting the weights of {checkpoint.folder}")
        found = np.concatenate(
            [np.empty(0, np.uint64), *(_digested(checkpoint, p, digest) for p in parts)]
        )
        if place is not None:
            _store(place, found)
    ends = np.cumsum([0, *(part.rows for part in parts)]).tolist()
    return [
        Rows(p.tensor, p.dtype, p.first_column, p.row_bytes, found[start:end])
        for p, (start, end) in zip(parts, pairwise(ends), strict=True)
    ]


def matrix(checkpoint: Checkpoint, name: str) -> NDArray[Any]:
    """Return a weight as rows: a vector is one row."""
    values = checkpoint.map(name)
    return values.reshape(-1, values.shape[-1] if values.ndim else 1)


def cast(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return rows in another dtype, as an engine that loads them casts."""
    with np.errstate(over="ignore", invalid="ignore"):  # float16 has its infinities
        return rows.astype(np.float32, copy=False).astype(dtype, copy=False)


@dataclass(frozen=True)
class _Part:
    """What is digested together: columns of a tensor in one dtype."""

    tensor: str
    dtype: str
    rows: int
    first_column: int
    columns: int

    @property
    def row_bytes(self) -> int:
        return self.columns * DTYPES[self.dtype].itemsize


def _parts(checkpoint: Checkpoint) -> Iterator[_Part]:
    # The fingerprint that names the cache is the same whatever the order in the file.
    for name in sorted(checkpoint.names()):
        entry = checkpoint.entry(name)
        if entry.tag not in DTYPE_OF_TAG or 0 in entry.shape:
            continue
        width = entry.shape[-1] if entry.shape else 1
        rows = int(np.prod(entry.shape)) // width
        for dtype in ENGINE_DTYPES:
            for first, columns in _blocks(name, width):
                part = _Part(name, dtype, rows, first, columns)
                if columns == width or part.row_bytes >= _LEAST_BYTES:
                    yield part


def _blocks(name: str, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first column and the width of a weight's blocks, the whole first."""
    yield 0, width
    for ranks in _RANKS if name.endswith(_SPLIT) else ():
        if width % ranks == 0:
            each = width // ranks
            yield from ((first, each) for first in range(0, width, each))


def _digested(checkpoint: Checkpoint, part: _Part, digest: DigestRows) -> Digests:
    values = matrix(checkpoint, part.tensor)
    values = values[:, part.first_column : part.first_column + part.columns]
    dtype = DTYPES[part.dtype].numpy
    height = max(1, _CAST_BYTES // max(1, part.columns * 4))
    blocks = (values[at : at + height] for at in range(0, part.rows, height))
    found = [digest(np.ascontiguousarray(_as(block, dtype))) for block in blocks]
    checkpoint.drop(part.tensor)
    return np.concatenate(found)


def _as(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return block if block.dtype == dtype else cast(block, dtype)


def _cache_place(checkpoint: Checkpoint) -> Path | None:
    with contextlib.suppress(GoldenctlError):
        said = f"{_VERSION} {checkpoint.fingerprint()} {ENGINE_DTYPES} {_SPLIT} {_RANKS}"
        name = hex_of(of_text(said, SHA256))[:20]
        return cache_folder() / "row-digests" / f"{name}.npz"
    return None


def _cached(place: Path, count: int) -> Digests | None:
    """Return the digests of the cache; None where there are none, or it is damaged."""
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = arrays["digests"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    with contextlib.suppress(OSError):
        place.touch()  # used last
    fine = found.dtype == np.uint64 and found.shape == (count,)
    return found if fine else None


def _store(place: Path, digests: Digests) -> None:
    """Keep digests for another trace; a cache that cannot be written is none."""
    with contextlib.suppress(OSError, GoldenctlError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, digests=digests)
        write_whole(place, buffer.getbuffer())
        kept = sorted(place.parent.glob("*.npz"), key=lambda path: -path.stat().st_mtime)
        for old in kept[_CACHED:]:
            old.unlink(missing_ok=True)
