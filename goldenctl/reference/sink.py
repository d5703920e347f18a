"""Owns the writing and hashing of tensors in a thread beside the computation."""

from __future__ import annotations

import hashlib
import queue
import threading

import numpy as np
import torch
from torch import Tensor

from goldenctl.golden.writer import GoldenWriter

_QUEUE_BYTES = 96 << 20


class TensorSink:
    """Writes tensors of a golden in a background thread and keeps their digests.

    Whole tensors are hashed as they are written; a tensor that comes in column slices is
    hashed when the file is sealed. At most ``_QUEUE_BYTES`` wait to be written. An error of
    the thread is raised at the next ``put`` or at ``close``.
    """

    def __init__(self, writer: GoldenWriter) -> None:
        self._writer = writer
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
            self._space.wait_for(lambda: self._waiting_bytes < _QUEUE_BYTES or self._error)
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
            try:
                if self._error is None:
                    self._store(name, value, first_column)
            except Exception as error:  # handed to the caller's thread by put and close
                self._error = error
            with self._space:
                self._waiting_bytes -= value.numel() * value.element_size()
                self._space.notify()

    def _store(self, name: str, value: Tensor, first_column: int) -> None:
        spec = self._writer.tensors[name]
        array = bits(value)
        if array.shape == spec.shape:
            data = memoryview(array).cast("B")
            self._writer.write(name, data)
            self.digests[name] = hashlib.sha256(data).hexdigest()
            return
        row_bytes = spec.shape[-1] * array.itemsize
        for row, columns in enumerate(array.reshape(-1, array.shape[-1])):
            at_byte = row * row_bytes + first_column * array.itemsize
            self._writer.write(name, memoryview(columns).cast("B"), at_byte)


def bits(value: Tensor) -> np.ndarray:
    """Return the tensor's memory as NumPy, bfloat16 as its 16-bit patterns."""
    value = value.detach().contiguous()
    return (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
