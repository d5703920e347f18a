"""Which of a checkpoint's weights a traced tensor is, by the digests of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.trace.calls import Arg, Weight
from goldenctl.trace.digest import DigestRows, Digests, digest_rows
from goldenctl.trace.layout import unpack
from goldenctl.trace.row_digests import Rows, cast, checkpoint_rows, matrix

_MOST_CANDIDATES = 4096  # of equal rows, such as rows of zeros


@dataclass(frozen=True)
class Piece:
    """Rows that follow each other in a weight of the checkpoint, or in a block of its columns.

    ``tensors`` are all that have these rows at ``first_row``: more than one where the
    checkpoint has equal tensors.
    """

    tensors: tuple[str, ...]
    first_row: int
    rows: int
    first_column: int = 0


class Book:
    """The digests of all rows of a checkpoint, in each dtype that an engine may hold them in."""

    def __init__(self, checkpoint: Checkpoint, entries: list[Rows]) -> None:
        self.checkpoint = checkpoint
        self._entries = entries
        counts = [len(entry.digests) for entry in entries]
        digests = np.concatenate([e.digests for e in entries] or [np.empty(0, np.uint64)])
        owners = np.repeat(np.arange(len(entries), dtype=np.uint32), counts)
        rows = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts] or [owners])
        order = np.argsort(digests, kind="stable")
        self._digests, self._owners, self._rows = digests[order], owners[order], rows[order]

    @staticmethod
    def of(
        checkpoint: Checkpoint,
        digest: DigestRows = digest_rows,
        *,
        notify: Callable[[str], None] = lambda _: None,
    ) -> Book:
        """Digest every weight, and tell that it takes its time; or take what the cache has."""
        return Book(checkpoint, checkpoint_rows(checkpoint, digest, notify))

    def write_table(self, path: Path) -> None:
        """Write what the shim recognises weights by; see shim/weights.h."""
        sizes = np.unique(np.array([e.row_bytes for e in self._entries], "<u8"))
        new = np.diff(self._digests, prepend=~self._digests[:1]) != 0
        digests = self._digests[new]
        head = np.array([len(sizes), len(digests)], "<u8")
        with path.open("wb") as file:
            for part in (head, sizes, digests):
                file.write(part.astype("<u8").data)

    def pieces(self, weight: Weight) -> tuple[Piece, ...]:
        """Return what a weight is made of, in the order of its rows.

        Rows that the checkpoint does not have, which only another checkpoint's log has, are
        pieces without tensors.
        """
        pieces: list[Piece] = []
        at = 0
        while at < len(weight.digests):
            pieces.append(self._piece(weight, at))
            at += pieces[-1].rows
        return tuple(pieces)

    def array(self, weight: Weight, arg: Arg) -> NDArray[np.generic]:
        """Return a weight's values as the engine held them, in the dtype and shape of ``arg``.

        Raises KeyError where the checkpoint lacks one of its rows.
        """
        dtype = DTYPES[arg.dtype].numpy
        parts = []
        for piece in self.pieces(weight):
            if not piece.tensors:
                raise KeyError(weight.content)
            width = weight.row_bytes // dtype.itemsize
            block = matrix(self.checkpoint, piece.tensors[0])[
                piece.first_row : piece.first_row + piece.rows,
                piece.first_column : piece.first_column + width,
            ]
            parts.append(cast(block, dtype))
        rows = np.concatenate(parts)
        packed = rows.T if weight.form == "transposed" else rows
        return unpack(np.ascontiguousarray(packed).reshape(-1), arg.shape, arg.strides)

    def _piece(self, weight: Weight, at: int) -> Piece:
        """Return the longest piece that begins at a row; the first tensor's where several are."""
        start, end = np.searchsorted(self._digests, [weight.digests[at], weight.digests[at] + 1])
        best: dict[tuple[int, int, int], list[str]] = {}
        for found in range(start, min(end, start + _MOST_CANDIDATES)):
            entry = self._entries[self._owners[found]]
            first = int(self._rows[found])
            if entry.row_bytes != weight.row_bytes:
                continue
            length = _agreeing(entry.digests[first:], weight.digests[at:])
            best.setdefault((length, -first, -entry.first_column), []).append(entry.tensor)
        if not best:
            return Piece((), 0, 1)
        # Of equally long ones the whole tensor, which begins at row 0, before a block of another.
        length, first, column = max(best)
        return Piece(tuple(dict.fromkeys(best[length, first, column])), -first, length, -column)


def _agreeing(a: Digests, b: Digests) -> int:
    """Return how many of the first entries of two arrays are equal."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size
