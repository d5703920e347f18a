"""Digests, ``algorithm:hex``: of bytes, of files, and of text.

New ones are BLAKE3, a tree hash that works on all cores. SHA-256 is what files from before it
have, which are checked by it as they are, and what others publish: package indexes, Git LFS.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from blake3 import blake3
from msgspec import Meta

from goldenctl.errors import DamagedError

SHA256, BLAKE3 = "sha256", "blake3"
HEX_DIGITS = 64  # of both
# An algorithm that is not known here has this form too, so that it is refused by its name.
Digest = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,31}:[0-9a-f]{32,128}$")]
Bytes = bytes | bytearray | memoryview

_KNOWN = re.compile(f"({SHA256}|{BLAKE3}):[0-9a-f]{{{HEX_DIGITS}}}")
# Keys of the files from before, whose digests are bare digits in some.
_RENAMED = {f"{of}sha256": f"{of}digest" for of in ("", "content_", "source_content_", "metadata_")}
_THREADED_BYTES = 256 << 10  # what several threads hash faster than one
_BLOCK_BYTES = 16 << 20
_threads = blake3.AUTO


def _work_alone() -> None:
    """A fork has none of the threads that BLAKE3 would wait for."""
    global _threads
    _threads = 1


os.register_at_fork(after_in_child=_work_alone)


class Hasher:
    """Hashes bytes block by block; ``update`` lets other threads run."""

    def __init__(self, algorithm: str = BLAKE3, *, threads: int = 1) -> None:
        self._algorithm = algorithm
        self._hash = blake3(max_threads=threads) if algorithm == BLAKE3 else hashlib.new(algorithm)

    def update(self, data: Bytes) -> None:
        self._hash.update(data)

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


def of_bytes(data: Bytes, algorithm: str = BLAKE3) -> str:
    """Return the digest of ``data``, on all cores where that is faster."""
    many = memoryview(data).nbytes >= _THREADED_BYTES
    hasher = Hasher(algorithm, threads=_threads if many else 1)
    hasher.update(data)
    return hasher.digest


def of_text(text: str, algorithm: str = BLAKE3) -> str:
    """Return the digest of ``text`` in UTF-8; bytes of names that are none count as they are."""
    return of_bytes(text.encode("utf-8", "surrogateescape"), algorithm)


def of_file(path: Path, algorithm: str = BLAKE3) -> str:
    """Return the digest of a file's bytes, read from its start to its end; OSError as it comes."""
    hasher = Hasher(algorithm, threads=_threads)
    with path.open("rb") as file:
        size = path.stat().st_size
        if size:
            with (
                mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                for start in range(0, size, _BLOCK_BYTES):
                    with view[start : start + _BLOCK_BYTES] as block:
                        hasher.update(block)
    return hasher.digest


def algorithm_of(digest: str) -> str:
    """Return the name of a digest's algorithm."""
    return digest.partition(":")[0]


def hex_of(digest: str) -> str:
    """Return a digest's hexadecimal digits."""
    return digest.partition(":")[2]


def matches(digest: str, data: Bytes) -> bool:
    """Whether a digest of a known algorithm is that of ``data``."""
    return of_bytes(data, algorithm_of(digest)) == digest


def is_known(digest: str) -> bool:
    """Whether a text is a digest of an algorithm that is known here."""
    return _KNOWN.fullmatch(digest) is not None


def require_known(digests: Iterable[str], where: str, tool_version: str) -> None:
    """Raise DamagedError, naming the goldenctl that wrote the file ``where``, at the first digest
    that is not of an algorithm known here."""
    for digest in digests:
        if is_known(digest):
            continue
        algorithm = algorithm_of(digest) if ":" in digest else "none"
        by = tool_version or "of an unknown version"
        message = (
            f"{where}: has a digest of the algorithm {algorithm[:32]!r}, expected {BLAKE3} or "
            f"{SHA256} and {HEX_DIGITS} hexadecimal digits; goldenctl {by} wrote it"
        )
        raise DamagedError(message, hint="a newer goldenctl may read it")


def modern(value: Any) -> Any:
    """Return what a file from before BLAKE3 says as it would be said today: other keys, and
    ``sha256:`` before bare digits."""
    if isinstance(value, Mapping):
        return dict(_modern_item(key, item) for key, item in value.items())
    return [modern(item) for item in value] if isinstance(value, list) else value


def _modern_item(key: str, item: Any) -> tuple[str, Any]:
    if key not in _RENAMED or not isinstance(item, str):
        return key, modern(item)
    return _RENAMED[key], item if not item or ":" in item else f"{SHA256}:{item}"
