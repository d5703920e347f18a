"""Owns fast appending to an allocated file: through one reused buffer, past the page cache.

A golden is as large as memory and is read back later if at all. Filling the page cache
with it costs more processor time than computing it does on a small machine, so whole pages
are written with O_DIRECT where the file system has it; elsewhere they are written plainly.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

PAGE_BYTES = 4096
_BUFFER_BYTES = 4 << 20
_O_DIRECT = getattr(os, "O_DIRECT", 0)


class FileStream:
    """Writes at rising offsets of a file that exists, for one thread.

    Bytes between two writes keep what the file held when the stream reached them. They
    and the file's other bytes may be written by others, but not bytes that share a page
    with what ``flush`` has not yet written.
    """

    def __init__(self, path: Path) -> None:
        self._plain = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._plain, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead in gaps
        self._direct = _open_direct(path)
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # starts on a page
        self._start = 0  # file offset of the buffer, a multiple of a page
        self._used = 0

    def write(self, data: memoryview, offset: int) -> None:
        """Write ``data`` at ``offset``; OSError may come here or at ``flush``."""
        self._move_to(offset)
        view = data.cast("B") if data.nbytes else memoryview(b"")
        while view:
            piece = view[: len(self._buffer) - self._used]
            self._buffer[self._used : self._used + len(piece)] = piece
            self._used += len(piece)
            view = view[len(piece) :]
            if self._used == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        whole = self._used // PAGE_BYTES * PAGE_BYTES
        start, used = self._start, self._used
        self._start, self._used = start + used, 0
        if whole:
            self._write_pages(self._buffer[:whole], start)
        _pwrite(self._plain, self._buffer[whole:used], start + whole)

    def close(self) -> None:
        """Close the file; what was not flushed is lost."""
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)

    def _move_to(self, offset: int) -> None:
        """Make the buffer end at ``offset``: fill a small gap, or start again there."""
        end = self._start + self._used
        if not self._used or not end <= offset < min(
            end + PAGE_BYTES, self._start + len(self._buffer)
        ):
            self.flush()
            end = self._start = offset // PAGE_BYTES * PAGE_BYTES
        gap = self._buffer[self._used : self._used + offset - end]
        got = os.preadv(self._plain, [gap], end) if gap else 0
        gap[got:] = bytes(len(gap) - got)
        self._used += len(gap)

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
