"""The calls of a traced program: what ran, in order, with the content of every tensor.

``read_calls`` parses the log that the preloaded library wrote. The log is untrusted: a record
that is not understood is damage, and every size is checked before anything is read by it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError
from goldenctl.exchange.records import Record, read_records
from goldenctl.trace.layout import AXES_LIMIT, DTYPES, packed_count, unpack

PART_BYTES = 16  # of one id in the payload of a joined content
CONTENT_LIMIT_BYTES = 1 << 34
ELEMENTS_LIMIT = 1 << 40  # of one view, broadcast axes and all
Scalar = bool | int | float | str | list[int | float]
_Id = str | None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """One record of the log; its kind is the class's tag."""


class Arg(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of a call.

    ``strides`` count elements. ``before`` and ``after`` are the contents when the call began
    (in, inout) and when it had ended (out, inout); None where it was not kept, for the reason
    ``left_out``. A tensor that InfiniCore may leave out has pointer 0.
    """

    name: str
    io: Literal["in", "out", "inout"]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    pointer: int
    before: _Id = None
    after: _Id = None
    left_out: str = ""


class Call(_Entry, frozen=True, tag="call"):
    """One launch of an op: ``infiniop<op>``.

    The program made it: what InfiniCore calls to do its work is not in the log. ``scalars`` are
    of the descriptor and of the launch, enumerators by their name in InfiniCore's headers.
    ``status`` is what InfiniCore returned, 0 for success; ``time_ns`` is of the call until the
    stream had done it, without what the trace does.
    """

    number: int
    thread: int
    device: str
    device_id: int
    stream: int
    op: str
    function: str
    scalars: dict[str, Scalar]
    args: tuple[Arg, ...]
    status: int
    time_ns: int


class Alloc(_Entry, frozen=True, tag="alloc"):
    """Memory that the program got from infinirt."""

    number: int
    thread: int
    pointer: int
    nbytes: int


class Free(_Entry, frozen=True, tag="free"):
    """Memory that it gave back."""

    number: int
    thread: int
    pointer: int


class Copy(_Entry, frozen=True, tag="copy"):
    """A copy by infinirt; ``content`` is None where it was too large to keep."""

    number: int
    thread: int
    target: int
    source: int
    nbytes: int
    direction: Literal["h2h", "h2d", "d2h", "d2d"]
    content: _Id = None


class Fill(_Entry, frozen=True, tag="fill"):
    """A fill of memory with one byte value by infinirt."""

    number: int
    thread: int
    target: int
    nbytes: int
    value: int


Event = Call | Alloc | Free | Copy | Fill


class Start(_Entry, frozen=True, tag="start"):
    """The program that was traced, and the libraries that it loaded."""

    version: Literal[1]
    program: tuple[str, ...]
    pid: int
    infiniop: str
    infinirt: str


class Note(_Entry, frozen=True, tag="note"):
    """What the library could not do, in words: a function it passed through, a full disk.

    ``function`` is of InfiniCore's API, or empty.
    """

    function: str
    text: str


class End(_Entry, frozen=True, tag="end"):
    """The program came to its end by itself; ``skipped`` calls were not asked for."""

    calls: int
    skipped: int = 0


class Other(_Entry, frozen=True, tag="other"):
    """The program loaded an InfiniCore that the library was not built for, and was ended."""

    infiniop: str


class _Bytes(_Entry, frozen=True, tag="bytes"):
    """The payload is a content."""

    id: str


class _Join(_Entry, frozen=True, tag="join"):
    """The payload is the ids, 16 bytes each, of the parts that make a large content."""

    id: str
    nbytes: int


class _Weight(_Entry, frozen=True, tag="weight"):
    """The payload is the digests of a weight's rows; see ``Weight``."""

    id: str
    row_bytes: int
    form: Literal["rows", "transposed"]


_Any = Event | Start | Note | End | Other | _Bytes | _Join | _Weight


@dataclass(frozen=True)
class Weight:
    """A content all of whose rows are the checkpoint's, of which only digests were kept.

    ``digests`` is uint64 [rows] in the order of memory. A ``transposed`` weight lies
    [in, out] in memory; its digests are those of its columns.
    """

    content: str
    digests: NDArray[np.uint64]
    row_bytes: int
    form: Literal["rows", "transposed"]


@dataclass(frozen=True)
class _Place:
    offset: int
    nbytes: int
    parts: tuple[str, ...] = ()


@dataclass
class Calls:
    """What one process of a traced program did.

    ``events`` are in the order of their numbers. ``end`` is None when the program was killed
    or crashed, ``torn_bytes`` what its last, unfinished record left. ``other`` is the file of
    another InfiniCore than the one that was meant, for which the program was ended.
    """

    path: Path
    start: Start
    events: tuple[Event, ...]
    weights: Mapping[str, Weight]
    notes: tuple[Note, ...]
    end: End | None
    other: str
    torn_bytes: int
    _places: Mapping[str, _Place] = field(repr=False)

    @property
    def calls(self) -> Iterator[Call]:
        """The launches, in order."""
        return (event for event in self.events if isinstance(event, Call))

    @property
    def ended(self) -> bool:
        """Whether the program came to its end by itself."""
        return self.end is not None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Functions of InfiniCore that were called and not understood."""
        return tuple(note.function for note in self.notes if note.function)

    def holds(self, content: str | None) -> bool:
        """Say whether the log has the bytes of a content (of weights it has not)."""
        return content in self._places

    def before(self, arg: Arg) -> NDArray[np.generic]:
        """Return the tensor as the call found it, read-only; KeyError where it was not kept."""
        return self.array(arg.before or "", arg)

    def after(self, arg: Arg) -> NDArray[np.generic]:
        """Return the tensor as the call left it, read-only; KeyError where it was not kept."""
        return self.array(arg.after or "", arg)

    def array(self, content: str, arg: Arg) -> NDArray[np.generic]:
        """Return a content in the dtype, shape and strides of ``arg``, mapped where it can be.

        Raises KeyError for a content that the log does not hold, DamagedError when its size
        is not that of ``arg``.
        """
        dtype = DTYPES[arg.dtype]
        expected = packed_count(arg.shape, arg.strides) * dtype.itemsize
        place = self._places[content]
        if place.nbytes != expected:
            message = (
                f"{self.path}: content {content} has {place.nbytes} bytes, expected {expected}"
            )
            raise DamagedError(message, hint="trace the program again")
        return unpack(self.bytes(content).view(dtype), arg.shape, arg.strides)

    def bytes(self, content: str) -> NDArray[np.uint8]:
        """Return a content as uint8 [nbytes], read-only; KeyError where the log has it not."""
        place = self._places[content]
        if place.parts:
            return np.concatenate([self.bytes(part) for part in place.parts])
        return self._mapped[place.offset : place.offset + place.nbytes]

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        with self.path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def read_calls(path: Path) -> Calls:
    """Read the log of one process.

    Raises MissingError when it cannot be read, DamagedError when it is not a log of calls or a
    record is not as it should be.
    """
    log = read_records(path)
    entries = [(_parsed(path, record), record) for record in log.records]
    start = entries[0][0] if entries else None
    if not isinstance(start, Start):
        _fail(path, "is not a log of calls: it does not begin with the program")
    if any(isinstance(entry, Start) for entry, _ in entries[1:]):
        _fail(path, "begins twice")
    events = tuple(e for e, _ in entries if isinstance(e, Call | Alloc | Free | Copy | Fill))
    calls = Calls(
        path,
        start,
        tuple(sorted(events, key=lambda event: event.number)),
        {},
        tuple(e for e, _ in entries if isinstance(e, Note)),
        next((entry for entry, _ in entries if isinstance(entry, End)), None),
        next((entry.infiniop for entry, _ in entries if isinstance(entry, Other)), ""),
        log.torn_bytes,
        _places(path, entries),
    )
    calls.weights = {
        entry.id: _weight(calls, entry, record)
        for entry, record in entries
        if isinstance(entry, _Weight)
    }
    return calls


def _parsed(path: Path, record: Record) -> _Any:
    try:
        entry: _Any = msgspec.convert(record.header, type=_Any)
    except (msgspec.ValidationError, RecursionError) as error:
        _fail(path, f"has a record that is not understood: {error}")
    if isinstance(entry, Call):
        for arg in entry.args:
            _check(path, entry, arg)
    return entry


def _check(path: Path, call: Call, arg: Arg) -> None:
    where = f"call {call.number} ({call.function}), {arg.name}"
    if len(arg.shape) != len(arg.strides) or len(arg.shape) > AXES_LIMIT:
        _fail(path, f"{where}: has {len(arg.shape)} sizes and {len(arg.strides)} strides")
    if any(size < 0 for size in arg.shape) or math.prod(arg.shape) > ELEMENTS_LIMIT:
        _fail(path, f"{where}: {list(arg.shape)} is not a shape")
    if arg.dtype not in DTYPES and (arg.before or arg.after):
        _fail(path, f"{where}: has dtype {arg.dtype}, which is not known")


def _places(path: Path, entries: list[tuple[_Any, Record]]) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for entry, record in entries:
        if isinstance(entry, _Bytes):
            places[entry.id] = _Place(record.payload_offset, record.payload_bytes)
        elif isinstance(entry, _Join):
            places[entry.id] = _joined(path, places, entry, record)
    return places


def _joined(path: Path, places: Mapping[str, _Place], entry: _Join, record: Record) -> _Place:
    """Find the parts of a large content; each was written before, and is not joined itself."""
    with path.open("rb") as file:
        file.seek(record.payload_offset)
        payload = file.read(record.payload_bytes)
    ids = [payload[at : at + PART_BYTES].hex() for at in range(0, len(payload), PART_BYTES)]
    if not ids or any(part not in places or places[part].parts for part in ids):
        _fail(path, f"content {entry.id} is made of parts that are not there")
    whole = sum(places[part].nbytes for part in ids)
    if whole != entry.nbytes or whole > CONTENT_LIMIT_BYTES:
        _fail(path, f"content {entry.id} does not have the size of its parts")
    return _Place(0, entry.nbytes, tuple(ids))


def _weight(calls: Calls, entry: _Weight, record: Record) -> Weight:
    if record.payload_bytes % 8 or not record.payload_bytes or entry.row_bytes <= 0:
        _fail(calls.path, f"weight {entry.id} has no whole digests")
    end = record.payload_offset + record.payload_bytes
    digests = calls._mapped[record.payload_offset : end].view("<u8")
    return Weight(entry.id, digests, entry.row_bytes, entry.form)


def _fail(path: Path, problem: str) -> NoReturn:
    message = f"{path}: {problem}"
    raise DamagedError(message, hint="trace the program again")
