"""Owns the writing and hashing of tensors in a thread beside the computation."""

from __future__ import annotations

import hashlib
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldenctl.golden.stream import FileStream
from goldenctl.golden.writer import GoldenWriter, cannot_write

_QUEUE_BYTES = 96 << 20
_BLOCK_BYTES = 256 << 10
# How long a thread may keep the interpreter while the other waits; Python's 5 ms are as
# long as an op.
_SWITCH_INTERVAL_S = 2e-4
Job = tuple[str, Tensor, int]  # tensor's path, values, first column
_SETTLE: Job = ("", torch.empty(0), 0)  # asks for all before it to be handed to the system


class TensorSink:
    """Writes tensors of a golden in a background thread and keeps their digests.

    A context manager. ``open_writer`` is called in the thread, since laying out a file with
    thousands of attributes takes as long as computing the first layers; leaving the sink
    leaves the writer. At most ``_QUEUE_BYTES`` wait to be written. An error of the thread is
    raised at the next ``put`` or at ``finish``.
    """

    def __init__(self, open_writer: Callable[[], GoldenWriter], names: Iterable[str]) -> None:
        self._open_writer = open_writer
        self.names = frozenset(names)
        self._settled = threading.Semaphore(0)
        self._writer: GoldenWriter | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._space = threading.Condition()
        self._waiting_bytes = 0
        self._error: Exception | None = None
        self._left = False
        self._thread = threading.Thread(target=self._work, name="golden-writer", daemon=True)
        self._switch_interval_s = sys.getswitchinterval()
        self.digests: dict[str, str] = {}

    def __enter__(self) -> TensorSink:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._join()
        sys.setswitchinterval(self._switch_interval_s)
        if self._writer is not None:
            self._writer.__exit__()

    def put(self, name: str, value: Tensor, first_column: int = 0) -> None:
        """Queue a tensor, or the columns of it from ``first_column`` on; a name that the
        file does not hold is passed over. ``value`` must not be changed afterwards."""
        if name not in self.names:
            return
        value = value.cpu()
        with self._space:
            self._space.wait_for(lambda: self._waiting_bytes < _QUEUE_BYTES)
            self._waiting_bytes += value.nbytes
        self._raise_error()
        self._jobs.put((name, value, first_column))

    def settle(self) -> GoldenWriter:
        """Wait until everything so far is written, though not yet on the disk; return the
        writer."""
        self._jobs.put(_SETTLE)
        self._settled.acquire()
        self._raise_error()
        assert self._writer is not None, "the thread opened it, or kept an error"
        return self._writer

    def finish(self) -> GoldenWriter:
        """Wait until everything is written; return the writer, ready to be sealed with
        ``digests``, which holds all but those of tensors that came in slices."""
        self._join()
        self._raise_error()
        assert self._writer is not None, "the thread opened it, or kept an error"
        return self._writer

    def _join(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        """Store every job; after an error, or when the sink was left, only take them."""
        try:
            self._writer = self._open_writer()
            _Storage(self._writer, self.digests, self._settled).store(self._taken())
        except Exception as error:
            self._error = error
            self._settled.release()
            for job in self._taken():
                if job is _SETTLE:
                    self._settled.release()

    def _taken(self) -> Iterator[Job]:
        """Yield jobs until the last; their memory counts as free when the next is asked for."""
        while (job := self._jobs.get()) is not None:
            if not self._left:
                yield job
            with self._space:
                self._waiting_bytes -= job[1].nbytes
                self._space.notify()


class _Storage:
    """What the thread does with a tensor: write it, and hash it if it is whole."""

    def __init__(
        self, writer: GoldenWriter, digests: dict[str, str], settled: threading.Semaphore
    ) -> None:
        self._writer = writer
        self._settled = settled
        self._digests = digests
        self._stream = FileStream(writer.temporary_path)

    def store(self, jobs: Iterable[Job]) -> None:
        """Store all jobs; UsageError with the system's reason when the file cannot be written."""
        try:
            for job in jobs:
                if job is _SETTLE:
                    self._stream.flush()
                    self._settled.release()
                else:
                    name, value, first_column = job
                    self._store(name, _bits(value), first_column)
            self._stream.flush()
        except OSError as error:
            raise cannot_write(self._writer.path, error) from error
        finally:
            self._stream.close()

    def _store(self, name: str, array: NDArray[np.generic], first_column: int) -> None:
        spec = self._writer.tensors[name]
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
        nbytes = self._writer.tensors[name].nbytes
        if len(data) != nbytes:
            msg = f"{name}: {len(data)} bytes, expected {nbytes}"
            raise ValueError(msg)
        digest = hashlib.sha256()
        offset = self._writer.offsets[name]
        for start in range(0, len(data), _BLOCK_BYTES):
            block = data[start : start + _BLOCK_BYTES]
            digest.update(block)
            self._stream.write(block, offset + start)
        self._digests[name] = digest.hexdigest()


def _bits(value: Tensor) -> NDArray[np.generic]:
    """Return the tensor's memory as NumPy, bfloat16 as its 16-bit patterns."""
    value = value.detach().contiguous()
    bits: NDArray[np.generic] = (
        value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
    ).numpy()
    return bits
