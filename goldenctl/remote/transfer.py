"""Transfer of a file to and from a store, by its digest.

A file of up to one part is the blob ``blake3/ab/cdef...`` of its digest. A larger one is cut
into parts, each a blob of its own digest, and ``blake3/ab/cdef....parts`` lists them and is
written last. So nothing is sent twice, an interrupted transfer goes on with the next part,
and any store will do. A blob that somebody put there whole is read as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from goldenctl.atomic import sync
from goldenctl.digests import (
    BLAKE3,
    SHA256,
    Digest,
    Hasher,
    algorithm_of,
    hex_of,
    is_known,
    matches,
    of_bytes,
    require_known,
)
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.golden.stream import FileStream, pages
from goldenctl.model.jsonfile import parse_object
from goldenctl.remote.stores import Store
from goldenctl.threads import map_in_order

PART_BYTES = 32 << 20
LEAST_PART_BYTES, MOST_PART_BYTES = 1 << 10, 256 << 20
_INDEX_LIMIT_BYTES = 16 << 20
_INDEX_VERSION = 2
Progress = Callable[[int], None]  # bytes done since the last call


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parts of a file, in order; all but the last are ``part_bytes`` long."""

    parts_version: int
    bytes: Annotated[int, Meta(ge=0, lt=1 << 53)]
    part_bytes: Annotated[int, Meta(ge=LEAST_PART_BYTES, le=MOST_PART_BYTES)]
    parts: list[Digest]


@dataclass(frozen=True)
class Sent:
    """What a push did: bytes that were sent, and bytes that were there already."""

    sent_bytes: int
    there_bytes: int


def key_of(digest: str) -> str:
    """Return the key of a blob by its digest."""
    assert is_known(digest)
    digits = hex_of(digest)
    return f"{algorithm_of(digest)}/{digits[:2]}/{digits[2:]}"


def send(
    store: Store,
    path: Path,
    digest: str,
    *,
    part_bytes: int = PART_BYTES,
    progress: Progress = lambda _: None,
) -> Sent:
    """Put the file at ``path`` into the store under its digest.

    Raises DamagedError, with nothing sent, when the file is not what its digest says, and
    UsageError when there would be too many parts.
    """
    size = path.stat().st_size
    known = _known(store, digest, size)
    algorithm = BLAKE3
    if known is not None and known.parts:
        part_bytes, algorithm = known.part_bytes, algorithm_of(known.parts[0])
    with path.open("rb") as file:
        data = _mapped(file.fileno(), size)
    parts = [
        of_bytes(data[start : start + part_bytes], algorithm)
        for start in range(0, size, part_bytes)
    ]
    _check(of_bytes(data, algorithm_of(digest)), digest, str(path))
    if known is not None and not known.parts:
        progress(size)
        return Sent(0, size)
    if len(parts) <= 1:
        store.write(key_of(digest), data)
        progress(size)
        return Sent(size, 0)
    index = Index(_INDEX_VERSION, size, part_bytes, parts)
    listed = msgspec.json.encode(index)
    if len(listed) > _INDEX_LIMIT_BYTES:
        message = f"{path}: {len(parts)} parts of {part_bytes} bytes are too many"
        raise UsageError(message, hint="choose a larger --part-size")
    there = _send_parts(store, data, index, progress)
    if known != index:
        store.write(f"{key_of(digest)}.parts", memoryview(listed))
    return Sent(size - there, there)


def _known(store: Store, digest: str, size: int) -> Index | None:
    """Return what the store has of a file already; None also for what is damaged there."""
    try:
        return _find(store, digest, size)
    except (MissingError, DamagedError):
        return None


def _send_parts(store: Store, data: memoryview, index: Index, progress: Progress) -> int:
    """Send the parts that are not there; return the bytes of those that were.

    Equal parts are one blob, which one thread sends.
    """
    first = {digest: number for number, digest in reversed(list(enumerate(index.parts)))}

    def send_part(number: int) -> int:
        part = data[number * index.part_bytes : (number + 1) * index.part_bytes]
        key = key_of(index.parts[number])
        there = store.size(key) == len(part)
        if not there:
            store.write(key, part)
        progress(len(part))
        return len(part) if there else 0

    there = sum(map_in_order(send_part, first.values()))
    again = index.bytes - sum(_part_bytes(index, number) for number in first.values())
    progress(again)
    return there + again


def _part_bytes(index: Index, number: int) -> int:
    return min(index.part_bytes, index.bytes - number * index.part_bytes)


def fetch(
    store: Store,
    digest: str,
    size: int,
    path: Path,
    *,
    progress: Progress = lambda _: None,
) -> int:
    """Bring the file of a digest and size to ``path``; return the bytes that came.

    What an interrupted call brought is kept beside ``path`` and gone on from. The file gets
    its name when its digest is right. Raises MissingError when the store does not have it,
    DamagedError when what it has is something else.
    """
    index = _find(store, digest, size)
    unfinished = path.with_name(f".{path.name}.pull.part")
    came = 0
    with _opened(unfinished) as descriptor:
        kept, hasher = _kept(descriptor, index, digest)
        _check_space(path, size - kept)
        progress(kept)
        stream = FileStream(unfinished)
        try:
            for data in _pieces(store, index, kept, digest):
                stream.write(data, kept + came, hasher.update)
                came += len(data)
                progress(len(data))
        finally:
            stream.flush()
            stream.close()
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        if hasher.digest != digest:
            unfinished.unlink()
            if kept:  # what was kept may be at fault: once more from the start
                return fetch(store, digest, size, path, progress=lambda _: None)
            _check(hasher.digest, digest, f"{store.name}: {key_of(digest)}")
        unfinished.replace(path)
    sync(path.parent)
    return came


def has(store: Store, digest: str, size: int) -> bool:
    """Tell whether the store has the file of a digest, whole or in all its parts."""
    try:
        index = _find(store, digest, size)
    except MissingError:
        return False
    return all(store.size(key_of(part)) is not None for part in index.parts)


def _find(store: Store, digest: str, size: int) -> Index:
    """Return the parts of a file in the store; one without parts for a blob that is whole."""
    key = key_of(digest)
    whole = store.size(key)
    if whole is not None and whole != size:
        message = f"{store.name}: {key} has {whole} bytes, expected {size}"
        raise DamagedError(message, hint="remove it there and push it again")
    if whole is not None:
        return Index(_INDEX_VERSION, size, PART_BYTES, [])
    listed = store.size(f"{key}.parts")
    if listed is None:
        store.explain()
        message = f"{store.name}: has no {digest}"
        raise MissingError(message, hint="goldenctl push it from a machine that has it")
    if listed > _INDEX_LIMIT_BYTES:
        message = f"{store.name}: {key}.parts has {listed} bytes, expected a short list"
        raise DamagedError(message, hint="remove it there and push it again")
    data = bytearray(listed)
    store.read(f"{key}.parts", 0, memoryview(data))
    return _parse_index(bytes(data), size, f"{store.name}: {key}.parts")


def _parse_index(data: bytes, size: int, where: str) -> Index:
    try:
        index = msgspec.convert(_as_today(parse_object(data, where)), Index)
    except msgspec.ValidationError as error:
        message = f"{where}: not a list of parts: {error}"
        raise DamagedError(message, hint="remove it there and push it again") from error
    count = -(-index.bytes // index.part_bytes)
    require_known(index.parts, where, "")
    if index.parts_version != _INDEX_VERSION or index.bytes != size or count != len(index.parts):
        message = f"{where}: {index.bytes} bytes in {len(index.parts)} parts, expected {size}"
        raise DamagedError(message, hint="remove it there and push it again")
    return index


def _as_today(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a list of the first version, which has bare digits of SHA-256, as one of today's."""
    parts = raw.get("parts")
    if raw.get("parts_version") != 1 or not isinstance(parts, list):
        return raw
    return {**raw, "parts_version": _INDEX_VERSION, "parts": [f"{SHA256}:{p}" for p in parts]}


def _pieces(store: Store, index: Index, kept: int, digest: str) -> Iterator[memoryview]:
    """Yield the file from the byte ``kept`` on, each part once its digest is right.

    A part's memory is used again for a later one once the next is asked for.
    """
    free: deque[memoryview] = deque()

    def piece(number: int) -> memoryview:
        memory = _taken(free) or pages(index.part_bytes)
        start = number * index.part_bytes
        data = memory[: _part_bytes(index, number)]
        if not index.parts:
            store.read(key_of(digest), start, data)
            return data
        part = index.parts[number]
        key = key_of(part)
        store.read(key, 0, data)
        _check(of_bytes(data, algorithm_of(part)), part, f"{store.name}: {key}")
        return data

    numbers = range(kept // index.part_bytes, -(-index.bytes // index.part_bytes))
    for data in map_in_order(piece, numbers):
        yield data
        if len(data) == index.part_bytes:
            free.append(data)


def _taken(free: deque[memoryview]) -> memoryview | None:
    try:
        return free.pop()
    except IndexError:
        return None


def _kept(descriptor: int, index: Index, digest: str) -> tuple[int, Hasher]:
    """Return how many bytes of whole parts an earlier transfer left, and their digest so far.

    The parts are checked where their digests are known.
    """
    hasher = Hasher(algorithm_of(digest))
    left = min(os.fstat(descriptor).st_size, index.bytes)
    kept = 0
    while kept + index.part_bytes <= left:
        data = os.pread(descriptor, index.part_bytes, kept)
        number = kept // index.part_bytes
        if len(data) < index.part_bytes:
            break
        if index.parts and not matches(index.parts[number], data):
            break
        hasher.update(data)
        kept += len(data)
    os.ftruncate(descriptor, kept)
    return kept, hasher


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open an unfinished file, new or left by an earlier transfer; no two at once."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)
    except BlockingIOError as error:
        message = f"{path}: another process is pulling it"
        raise UsageError(message, hint="wait for it to end") from error
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror}"
        hint = "nothing was changed; what came is kept, run it again"
        raise UsageError(message, hint=hint) from error


def _mapped(descriptor: int, size: int) -> memoryview:
    if not size:
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))


def _check(actual: str, expected: str, what: str) -> None:
    if actual != expected:
        message = f"{what}: expected {expected}, got {actual}"
        raise DamagedError(
            message, hint="it was changed after it was recorded, or damaged on its way"
        )


def _check_space(path: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < needed_bytes:
        message = f"{path}: {needed_bytes:,} bytes are needed, the disk has {free_bytes:,} free"
        raise UsageError(message, hint="free space and run it again")
