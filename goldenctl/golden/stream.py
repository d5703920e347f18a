"""Fast writing into an allocated file, past the page cache, from several threads.

A golden is as large as memory and is read back later if at all. Filling the page cache
with it costs more processor time than computing it does on a small machine, so whole pages
are written with O_DIRECT where the file system has it, from where they are if pages of memory
and file coincide; elsewhere they are written plainly.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

PAGE_BYTES = 4096
_BUFFER_BYTES = 512 << 10
_BLOCK_BYTES = 4 << 20
_LEAST_DIRECT_BYTES = 64 << 10
_KEPT_BYTES = 4 << 20
_O_DIRECT = getattr(os, "O_DIRECT", 0)


class FileStream:
    """Writes tensors of a file that exists, for one thread; others may write other tensors.

    Pages that a tensor shares with its neighbours, and small tensors, are kept and written
    by ``flush``: a plain write waits for every direct one that is under way.
    """

    def __init__(self, path: Path) -> None:
        self._plain = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._direct = _open_direct(path)
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # starts on a page
        self._kept: list[tuple[bytes, int]] = []
        self._kept_bytes = 0

    def write(self, data: memoryview, offset: int, see: Callable[[memoryview], object]) -> None:
        """Write ``data``, bytes, at ``offset``; OSError may come here or at ``flush``.

        ``see`` is given every block in order just before it is written.
        """
        start = min(-offset % PAGE_BYTES, len(data))
        end = start + (len(data) - start) // PAGE_BYTES * PAGE_BYTES
        if end - start < _LEAST_DIRECT_BYTES:
            start = end = 0
        self._keep(data[:start], offset, see)
        in_place = start < end and _address(data[start:end]) % PAGE_BYTES == 0
        size = _BLOCK_BYTES if in_place else len(self._buffer)
        for at in range(start, end, size):
            block = data[at : min(at + size, end)]
            see(block)
            self._write_pages(block if in_place else self._copied(block), offset + at)
        self._keep(data[end:], offset + end, see)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        for data, offset in self._kept:
            _pwrite(self._plain, memoryview(data), offset)
        self._kept.clear()
        self._kept_bytes = 0

    def close(self) -> None:
        """Close the file; what was not flushed is lost."""
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)

    def _keep(self, data: memoryview, offset: int, see: Callable[[memoryview], object]) -> None:
        if not data:
            return
        see(data)
        self._kept.append((bytes(data), offset))
        self._kept_bytes += len(data)
        if self._kept_bytes > _KEPT_BYTES:
            self.flush()

    def _copied(self, block: memoryview) -> memoryview:
        copy = self._buffer[: len(block)]
        copy[:] = block
        return copy

    def _write_pages(self, pages: memoryview, offset: int) -> None:
        if self._direct is not None:
            try:
                _pwrite(self._direct, pages, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                os.close(self._direct)  # the disk wants another alignment than a page
                self._direct = None
            else:
                return
        _pwrite(self._plain, pages, offset)


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def pages(size_bytes: int) -> memoryview:
    """Return memory that starts on a page, so that it is written without a copy."""
    memory = mmap.mmap(-1, max(size_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:size_bytes]


def _open_direct(path: Path) -> int | None:
    """Open past the page cache; None where the system or the file system cannot."""
    if not _O_DIRECT:
        return None
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | _O_DIRECT)
    except OSError:
        return None


def _pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
