"""How the reference's process gets its memory: in huge pages, and kept once it is freed.

An op's output is megabytes that nobody has touched yet, and the first touch of each page
costs the kernel more than the arithmetic of a light op. What glibc is told here it would
else give back and ask for again, op by op.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT_BYTES = 1 << 30  # neither mapped apart nor given back below this
_USUAL_BYTES = 128 << 10  # glibc's own value of both


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory be used again while the context lasts; the rest is returned after it.

    Asks torch for huge pages too, which it heeds if it has not allocated anything before.
    Without glibc nothing changes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    if libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):  # older glibc refuses so large a value
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _USUAL_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_BYTES)
        libc.malloc_trim(0)
