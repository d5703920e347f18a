"""Owns the writing and hashing of tensors in a thread beside the computation."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldenctl.golden.stream import FileStream
from goldenctl.golden.writer import GoldenWriter, cannot_write

_QUEUE_BYTES = 96 << 20
_BLOCK_BYTES = 256 << 10


class TensorSink:
    """Writes tensors of a golden in a background thread and keeps their digests.

    Whole tensors are hashed as they are written; a tensor that comes in column slices is
    hashed when the file is sealed. At most ``_QUEUE_BYTES`` wait to be written. An error of
    the thread is raised at the next ``put`` or at ``close``.
    """

    def __init__(self, writer: GoldenWriter) -> None:
        self._writer = writer
        self._stream = FileStream(writer.temporary_path)
        self._jobs: queue.SimpleQueue[tuple[str, Tensor, int] | None] = queue.SimpleQueue()
        self._space = threading.Condition()
        self._waiting_bytes = 0
        self._error: Exception | None = None
        self.digests: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, name="golden-writer", daemon=True)
        self._thread.start()

    def put(self, name: str, value: Tensor, first_column: int = 0) -> None:
        """Queue a tensor, or the columns of it from ``first_column`` on; a name that the
        file does not hold is passed over. ``value`` must not be changed afterwards."""
        if name not in self._writer.tensors:
            return
        value = value.cpu()
        nbytes = value.numel() * value.element_size()
        with self._space:
            self._space.wait_for(lambda: self._waiting_bytes < _QUEUE_BYTES)
            self._waiting_bytes += nbytes
        self._raise_error()
        self._jobs.put((name, value, first_column))

    def close(self) -> None:
        """Wait until everything is written."""
        self._jobs.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            name, value, first_column = job
            self._attempt(lambda: self._store(name, value, first_column))  # noqa: B023
            with self._space:
                self._waiting_bytes -= value.numel() * value.element_size()
                self._space.notify()
        self._attempt(self._stream.flush)
        self._stream.close()

    def _attempt(self, action: Callable[[], None]) -> None:
        """Keep the first error for the caller's thread; after one, do nothing."""
        if self._error is None:
            try:
                action()
            except OSError as error:
                self._error = cannot_write(self._writer.path, error)
            except Exception as error:
                self._error = error

    def _store(self, name: str, value: Tensor, first_column: int) -> None:
        spec = self._writer.tensors[name]
        array = _bits(value)
        if array.shape == spec.shape:
            self._store_whole(name, array.reshape(-1).data.cast("B"))
            return
        self._stream.flush()
        row_bytes = spec.shape[-1] * array.itemsize
        for row, columns in enumerate(array.reshape(-1, array.shape[-1])):
            at_byte = row * row_bytes + first_column * array.itemsize
            self._writer.write(name, columns.data.cast("B"), at_byte)

    def _store_whole(self, name: str, data: memoryview) -> None:
        """Hash and copy block by block, so that memory is read once."""
        digest = hashlib.sha256()
        offset = self._writer.offsets[name]
        for start in range(0, len(data), _BLOCK_BYTES):
            block = data[start : start + _BLOCK_BYTES]
            digest.update(block)
            self._stream.write(block, offset + start)
        self.digests[name] = digest.hexdigest()


def _bits(value: Tensor) -> NDArray[np.generic]:
    """Return the tensor's memory as NumPy, bfloat16 as its 16-bit patterns."""
    value = value.detach().contiguous()
    bits: NDArray[np.generic] = (
        value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
    ).numpy()
    return bits
