"""A log of records reads back whole; torn at any byte it keeps every record before the tear."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldenctl.errors import DamagedError, MissingError
from goldenctl.exchange.records import MAGIC, RecordLog, RecordWriter, read_records

HEADERS = st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(0, 99)))
RECORDS = st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=5)


def write(path: Path, records: list[tuple[dict[str, object], bytes]]) -> list[int]:
    """Write a log and return the file's size after its magic and after every record."""
    path.unlink(missing_ok=True)
    with RecordWriter(path) as writer:
        sizes = [path.stat().st_size]
        for header, payload in records:
            writer.append(header, payload)
            sizes.append(path.stat().st_size)
    return sizes


def contents(log: RecordLog) -> list[tuple[dict[str, object], bytes]]:
    data = log.path.read_bytes()
    return [
        (dict(r.header), data[r.payload_offset : r.payload_offset + r.payload_bytes])
        for r in log.records
    ]


@given(RECORDS)
def test_records_read_back_as_they_were_written(
    records: list[tuple[dict[str, object], bytes]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        write(path, records)
        log = read_records(path)
        assert contents(log) == records
        assert log.torn_bytes == 0


@given(RECORDS, st.data())
def test_a_log_cut_anywhere_keeps_the_records_before_the_cut(
    records: list[tuple[dict[str, object], bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        sizes = write(path, records)
        cut = data.draw(st.integers(sizes[0], sizes[-1]))
        path.write_bytes(path.read_bytes()[:cut])
        log = read_records(path)
        whole = max(number for number, size in enumerate(sizes) if size <= cut)
        assert contents(log) == records[:whole]
        assert log.torn_bytes == cut - sizes[whole]


@given(RECORDS.filter(bool), st.data())
def test_a_changed_byte_of_a_header_is_damage_and_never_another_header(
    records: list[tuple[dict[str, object], bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        write(path, records)
        first = read_records(path).records[0]
        at = data.draw(st.integers(len(MAGIC) + 24, first.payload_offset - 1))
        content = bytearray(path.read_bytes())
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="checksum does not match"):
            read_records(path)


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"something else entirely")
    with pytest.raises(DamagedError, match="not a log that a tap or a trace wrote"):
        read_records(path)
    with pytest.raises(MissingError, match="cannot be read"):
        read_records(tmp_path / "absent")


def test_what_follows_a_record_must_be_a_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, [({"a": 1}, b"")])
    path.write_bytes(path.read_bytes() + bytes(48))
    with pytest.raises(DamagedError, match="begins no record"):
        read_records(path)


def test_a_writer_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        RecordWriter(path)
    assert path.read_bytes() == b"kept"
