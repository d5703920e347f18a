"""Writing and hashing of tensors, in threads beside the computation."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldenctl.atomic import cannot_write
from goldenctl.digests import Hasher
from goldenctl.golden.room import Room
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.stream import FileStream

# Half of them wait for the disk while the others hash, 2 GB/s each. Where little is written
# they only fight the computation for the interpreter.
_MOST_THREADS = 4
_BYTES_OF_A_THREAD = 256 << 20
# They yield to the computation, whose threads wait for each other at the end of every op, and
# fill its gaps; when the queue is full it waits, and they have the processor to themselves.
_NICER = 10
_QUEUE_BYTES = 96 << 20
_ROOM_QUEUE_BYTES = 8 << 20  # a model that is loaded leaves less memory than one that is streamed
# How long a thread may keep the interpreter while the other waits; Python's 5 ms are as
# long as an op.
_SWITCH_INTERVAL_S = 2e-4


class Target(Protocol):
    """A file with room for tensors: that of a GoldenWriter, or a Room."""

    path: Path
    temporary_path: Path
    tensors: dict[str, TensorSpec]
    offsets: dict[str, int]

    def write(self, name: str, data: memoryview, at_byte: int = 0) -> None: ...

    def __exit__(self, *_: object) -> Any: ...


File = TypeVar("File", bound=Target)


class TensorSink(Generic[File]):
    """Writes tensors of a golden in background threads and keeps their digests.

    A context manager. ``open_writer`` is called in such a thread, since laying out a file
    with thousands of attributes takes as long as computing the first layers; leaving the sink
    leaves the writer. At most ``_QUEUE_BYTES`` wait to be written. An error of a thread is
    raised at the next ``put``, ``settle`` or ``finish``.
    """

    def __init__(self, open_writer: Callable[[], File], tensors: Iterable[TensorSpec]) -> None:
        sizes = {spec.name: spec.nbytes for spec in tensors}
        threads = min(1 + sum(sizes.values()) // _BYTES_OF_A_THREAD, _MOST_THREADS)
        self._open_writer = open_writer
        self.names = set(sizes)
        self.digests: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(threads, "golden-writer")
        self._own = threading.local()  # each thread's stream
        self._streams: list[FileStream] = []
        self._changed = threading.Condition()
        self._queue_bytes = _QUEUE_BYTES
        self._waiting_bytes = self._waiting = 0  # bytes, and how many tensors they are
        self._error: Exception | None = None
        self._left = False
        self._switch_interval_s = sys.getswitchinterval()

    def __enter__(self) -> Self:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._opened: Future[File] = self._pool.submit(self._open_writer)
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._pool.shutdown()
        sys.setswitchinterval(self._switch_interval_s)
        for stream in self._streams:
            stream.close()
        if self._opened.exception() is None:
            self._opened.result().__exit__()

    def put(self, name: str, value: Tensor, first_column: int = 0) -> None:
        """Queue a tensor, or the columns of it from ``first_column`` on; a name that the
        file does not hold is passed over. ``value`` must not be changed afterwards."""
        if name not in self.names:
            return
        value = value.cpu()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < self._queue_bytes)
            self._raise_error()
            self._waiting_bytes += value.nbytes
            self._waiting += 1
        self._pool.submit(self._work, name, value, first_column)

    def settle(self) -> File:
        """Wait until everything so far is handed to the system, though not yet on the disk;
        return the writer."""
        writer = self._opened.result()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        self._raise_error()
        try:
            for stream in self._streams:
                stream.flush()
        except OSError as error:
            raise cannot_write(writer.path, error) from error
        return writer

    def finish(self) -> File:
        """Wait until everything is written; return the writer, ready to be sealed with
        ``digests``, which holds all but those of tensors that came in slices."""
        writer = self.settle()
        self._pool.shutdown()
        return writer

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self, name: str, value: Tensor, first_column: int) -> None:
        """Store a tensor; after an error, or when the sink was left, only let go of it."""
        try:
            if self._error is None and not self._left:
                self._store(self._opened.result(), name, _bits(value), first_column)
        except Exception as error:
            self._error = error
        with self._changed:
            self._waiting_bytes -= value.nbytes
            self._waiting -= 1
            self._changed.notify()

    def _store(
        self, writer: File, name: str, array: NDArray[np.generic], first_column: int
    ) -> None:
        """Write a tensor and hash it if it is whole; UsageError with the system's reason when
        the file cannot be written."""
        spec = writer.tensors[name]
        if array.shape != spec.shape:
            row_bytes = spec.shape[-1] * array.itemsize
            for row, columns in enumerate(array.reshape(-1, array.shape[-1])):
                at_byte = row * row_bytes + first_column * array.itemsize
                writer.write(name, columns.data.cast("B"), at_byte)
            return
        if array.nbytes != spec.nbytes:
            msg = f"{name}: {array.nbytes} bytes, expected {spec.nbytes}"
            raise ValueError(msg)
        hasher = Hasher()
        try:
            data = array.reshape(-1).data.cast("B")
            self._stream(writer).write(data, writer.offsets[name], hasher.update)
        except OSError as error:
            raise cannot_write(writer.path, error) from error
        self.digests[name] = hasher.digest

    def _stream(self, writer: File) -> FileStream:
        """Return this thread's own."""
        if not hasattr(self._own, "stream"):
            _yield()
            self._own.stream = FileStream(writer.temporary_path)
            self._streams.append(self._own.stream)
        stream: FileStream = self._own.stream
        return stream


class RoomSink(TensorSink[Room]):
    """Writes tensors that nobody knew of before they came, each under a key, one after another:
    equal recordings are equal files."""

    def __init__(self, path: Path) -> None:
        super().__init__(lambda: Room(path), ())
        self._queue_bytes = _ROOM_QUEUE_BYTES
        self.specs: dict[str, TensorSpec] = {}

    def add(self, spec: TensorSpec, value: Tensor) -> None:
        """Queue a whole tensor; ``value`` must not be changed afterwards."""
        self.specs[spec.name] = spec
        self.names.add(spec.name)
        self.put(spec.name, value)

    def _store(
        self, writer: Room, name: str, array: NDArray[np.generic], first_column: int
    ) -> None:
        writer.reserve(self.specs[name])
        super()._store(writer, name, array, first_column)


def _yield() -> None:
    """Let this thread come after others. Elsewhere than on Linux all of the process would."""
    if sys.platform == "linux":
        os.nice(_NICER)


def _bits(value: Tensor) -> NDArray[np.generic]:
    """Return the tensor's memory as NumPy, bfloat16 as its 16-bit patterns."""
    value = value.detach().contiguous()
    bits: NDArray[np.generic] = (
        value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
    ).numpy()
    return bits
