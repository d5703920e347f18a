"""FileStream puts bytes where they belong, with O_DIRECT and without, beside other writers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldenctl.golden import stream
from goldenctl.golden.stream import PAGE_BYTES, FileStream, pages

SIZE = 300_000


@pytest.fixture(params=["direct", "plain", "refused"])
def small_buffer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer of four pages; ``refused``: the disk turns O_DIRECT down when it is written."""
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 4 * PAGE_BYTES)
    monkeypatch.setattr(stream, "_LEAST_DIRECT_BYTES", 2 * PAGE_BYTES)
    monkeypatch.setattr(stream, "_KEPT_BYTES", 10_000)
    if request.param == "plain":
        monkeypatch.setattr(stream, "_open_direct", lambda _path: None)
    if request.param == "refused":
        monkeypatch.setattr(stream, "_open_direct", lambda path: os.open(path, os.O_RDONLY))
        monkeypatch.setattr(os, "pwrite", refusing(os.pwrite))


def refusing(pwrite: Callable[..., int]) -> Callable[..., int]:
    def refuse(descriptor: int, data: memoryview, offset: int) -> int:
        try:
            return pwrite(descriptor, data, offset)
        except OSError as error:  # not open for writing
            raise OSError(errno.EINVAL, "Invalid argument") from error

    return refuse


pieces = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 200), st.integers(0, 60_000)),
        st.one_of(st.integers(1, 300), st.integers(1, 90_000)),
    ),
    max_size=12,
)


@pytest.mark.usefixtures("small_buffer")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=pieces, seed=st.integers(0, 1 << 30), back=st.booleans(), pages_meet=st.booleans())
def test_bytes_are_where_they_belong(
    tmp_path: Path, pieces: list[tuple[int, int]], seed: int, back: bool, pages_meet: bool
) -> None:
    """Each piece is (gap before it, length); what lies in the gaps stays as it was. Where pages of
    memory and file meet, a piece is written from where it is."""
    generator = np.random.Generator(np.random.PCG64(seed))
    expected = bytearray(generator.bytes(SIZE))
    path = tmp_path / "file"
    path.write_bytes(expected)
    writer = FileStream(path)
    placed, offset = [], 0
    for gap, length in pieces:
        length = min(length, SIZE - offset - gap)
        if length > 0:
            placed.append((offset + gap, length))
            offset += gap + length
    for offset, length in reversed(placed) if back else placed:
        start = offset % PAGE_BYTES if pages_meet else 1
        data = pages(start + length)[start:]
        data[:] = generator.bytes(length)
        seen = bytearray()
        writer.write(data, offset, seen.extend)
        assert seen == data
        expected[offset : offset + length] = data
    writer.flush()
    assert path.read_bytes() == expected
    writer.close()


@pytest.mark.usefixtures("small_buffer")
def test_threads_write_beside_each_other(tmp_path: Path) -> None:
    """Neighbours share pages; each has a stream of its own."""
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    ends = [0, 100, 50_000, 50_010, 120_007, 201_000, SIZE]
    tensors = [(bytes([n + 1]) * (b - a), a) for n, (a, b) in enumerate(pairwise(ends))]
    streams = [FileStream(path) for _ in tensors]

    def write(job: tuple[FileStream, tuple[bytes, int]]) -> None:
        mine, (data, offset) = job
        mine.write(memoryview(data), offset, len)

    with ThreadPoolExecutor(len(tensors)) as pool:
        list(pool.map(write, zip(streams, tensors, strict=True)))
    for each in streams:
        each.flush()
        each.close()
    assert path.read_bytes() == b"".join(data for data, _ in tensors)


def test_what_is_small_waits_for_flush(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    writer = FileStream(path)
    writer.write(memoryview(b"abc"), 5, len)
    writer.write(memoryview(b""), 16, len)
    assert path.read_bytes() == bytes(64)
    writer.flush()
    assert path.read_bytes() == bytes(5) + b"abc" + bytes(56)
    writer.write(memoryview(b"lost"), 20, len)
    writer.close()
    assert path.read_bytes()[20:24] == bytes(4)


@pytest.mark.parametrize("nbytes", [PAGE_BYTES, 1 << 20])
def test_other_errors_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_bytes(bytes(nbytes))
    writer = FileStream(path)
    monkeypatch.setattr(os, "pwrite", full)

    def write() -> None:
        writer.write(memoryview(bytes(nbytes)), 0, len)
        writer.flush()

    with pytest.raises(OSError, match="No space left"):
        write()
    writer.close()
