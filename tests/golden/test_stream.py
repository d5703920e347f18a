"""FileStream puts bytes where they belong, with O_DIRECT and without, beside other writers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldenctl.golden import stream
from goldenctl.golden.stream import PAGE_BYTES, FileStream

SIZE = 300_000


@pytest.fixture(params=["direct", "plain", "refused"])
def small_buffer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer of four pages; ``refused``: the disk turns O_DIRECT down when it is written."""
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 4 * PAGE_BYTES)
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
@given(pieces=pieces, seed=st.integers(0, 1 << 30), back=st.booleans())
def test_bytes_are_where_they_belong(
    tmp_path: Path, pieces: list[tuple[int, int]], seed: int, back: bool
) -> None:
    """Each piece is (gap before it, length); what lies in the gaps stays as it was."""
    generator = np.random.Generator(np.random.PCG64(seed))
    expected = bytearray(generator.bytes(SIZE))
    path = tmp_path / "file"
    path.write_bytes(expected)
    writer = FileStream(path)
    offset = 0
    for gap, length in pieces:
        offset = 7 if back and offset > SIZE // 2 else offset + gap
        data = generator.bytes(min(length, SIZE - offset)) if offset < SIZE else b""
        if not data:
            continue
        writer.write(memoryview(data), offset)
        expected[offset : offset + len(data)] = data
        offset += len(data)
    writer.flush()
    assert path.read_bytes() == expected
    writer.close()


@pytest.mark.usefixtures("small_buffer")
def test_others_may_write_elsewhere_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    writer = FileStream(path)
    writer.write(memoryview(b"a" * 50_000), 100)
    with path.open("r+b") as other:
        os.pwrite(other.fileno(), b"b" * 1000, 200_000)
    writer.flush()
    writer.write(memoryview(b"c" * 10), 50_100)
    writer.close()  # not flushed: lost
    assert path.read_bytes() == (
        bytes(100) + b"a" * 50_000 + bytes(149_900) + b"b" * 1000 + bytes(99_000)
    )


def test_typed_and_empty_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    writer = FileStream(path)
    writer.write(memoryview(np.arange(4, dtype="<i4")), 0)
    writer.write(memoryview(np.empty((0, 3))), 16)
    writer.flush()
    assert np.frombuffer(path.read_bytes(), "<i4")[:5].tolist() == [0, 1, 2, 3, 0]
    writer.close()


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    writer = FileStream(path)
    writer.write(memoryview(bytes(PAGE_BYTES)), 0)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    writer.close()
