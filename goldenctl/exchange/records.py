"""The framing of a log of records: what a program appends while it runs, read even when torn.

A file begins with ``MAGIC``. A record is 24 bytes (mark, header size, payload size, CRC-32 of
the header), a JSON object padded with spaces and a payload padded with zeros, both to multiples
of 8; all numbers are little endian. A program that dies in the middle of a record leaves a torn
tail: every record before it is whole.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from goldenctl.errors import DamagedError, MissingError

MAGIC = b"goldenctl-log 1\n"
_MARK = 0x474C5443
_FRAME = struct.Struct("<IIQQ")  # mark, header bytes, payload bytes, checksum of the header
_HEADER_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """One record: its header, and where its payload lies in the file."""

    header: Mapping[str, Any]
    payload_offset: int
    payload_bytes: int


@dataclass(frozen=True)
class RecordLog:
    """The whole records of a log. ``torn_bytes`` is what an unfinished record left behind them."""

    path: Path
    records: tuple[Record, ...]
    torn_bytes: int


def is_log(path: Path) -> bool:
    """Say whether a file begins as a log does; what cannot be read does not."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_records(path: Path) -> RecordLog:
    """Read the headers of a log; payloads are left where they are.

    Raises MissingError when the file cannot be read, DamagedError when it is not a log or a record
    that is followed by others is not whole.
    """
    try:
        with path.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            if file.read(len(MAGIC)) != MAGIC:
                message = f"{path}: not a log that a tap or a trace wrote"
                raise DamagedError(message)
            return _records(path, file, total)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error


def _records(path: Path, file: Any, total: int) -> RecordLog:
    records: list[Record] = []
    while (start := file.tell()) < total:
        record = _record(path, file, start, total)
        if record is None:
            return RecordLog(path, tuple(records), total - start)
        records.append(record)
        file.seek(record.payload_offset + padded(record.payload_bytes))
    return RecordLog(path, tuple(records), 0)


def _record(path: Path, file: Any, start: int, total: int) -> Record | None:
    """Read the record at ``start``; None when the file ends before the record does."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    mark, header_bytes, payload_bytes, checksum = _FRAME.unpack(frame)
    if mark != _MARK or header_bytes % 8 or not 0 < header_bytes <= _HEADER_LIMIT_BYTES:
        message = f"{path}: byte {start} begins no record"
        raise DamagedError(message, hint="record the log again")
    header = file.read(header_bytes)
    payload_offset = start + _FRAME.size + header_bytes
    if payload_offset + padded(payload_bytes) > total:
        return None
    if zlib.crc32(header) != checksum:
        message = f"{path}: the record at byte {start} is damaged: its checksum does not match"
        raise DamagedError(message, hint="record the log again")
    return Record(_decoded(path, start, header), payload_offset, payload_bytes)


def _decoded(path: Path, start: int, header: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(header, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        message = f"{path}: the record at byte {start} is not a JSON object: {error}"
        raise DamagedError(message) from error


def padded(size_bytes: int) -> int:
    """Return the size of a header or payload with its padding."""
    return -(-size_bytes // 8) * 8


class RecordWriter:
    """Appends records to a new file. Raises FileExistsError when there is one already."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._file.write(MAGIC)

    def append(self, header: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        """Write one record; ``payload`` is bytes, or a contiguous view of bytes."""
        text = msgspec.json.encode(header)
        text = text.ljust(padded(len(text)))
        if len(text) > _HEADER_LIMIT_BYTES:
            message = f"a header of {len(text)} bytes"
            raise ValueError(message)
        size = len(payload)
        self._write(_FRAME.pack(_MARK, len(text), size, zlib.crc32(text)) + text)
        self._write(payload)
        self._write(bytes(padded(size) - size))

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
