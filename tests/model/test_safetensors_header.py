"""The safetensors header reader: against the package, and against damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, MissingError
from goldenctl.model.safetensors_header import Entry, parse_header, read_header
from goldenctl.model.safetensors_write import header_bytes

NUMPY = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I64": np.int64, "BOOL": np.bool_}
NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    return np.zeros(shape, NUMPY[draw(st.sampled_from(sorted(NUMPY)))])


def _parse(data: bytes) -> dict[str, Entry]:
    """Parse a whole file's bytes as ``read_header`` does."""
    length = int.from_bytes(data[:8], "little")
    return parse_header(data[8 : 8 + length], len(data) - 8 - length, where="f")


@given(st.dictionaries(NAMES, arrays(), max_size=6))
def test_reads_what_the_package_writes(tensors: dict[str, NDArray[Any]]) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    data = numpy_files.save(tensors, metadata={"format": "np"})
    entries = _parse(data)
    assert entries.keys() == tensors.keys()
    for name, entry in entries.items():
        assert entry.shape == tensors[name].shape
        assert NUMPY[entry.tag] == tensors[name].dtype
        assert entry.size_bytes == tensors[name].nbytes


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.tuples(st.sampled_from(["bfloat16", "float16", "float32"]), SHAPES)


@given(st.dictionaries(NAMES, TENSORS, max_size=6))
def test_package_reads_what_we_write(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    safetensors = pytest.importorskip("safetensors")
    header = header_bytes(tensors)
    sizes = [np.prod(s, dtype=int) * (4 if d == "float32" else 2) for d, s in tensors.values()]
    data = header + bytes(int(sum(sizes)))
    theirs = {name: tuple(info["shape"]) for name, info in safetensors.deserialize(data)}
    assert theirs == {name: shape for name, (_, shape) in tensors.items()}
    assert {name: entry.shape for name, entry in _parse(data).items()} == theirs
    assert len(header) % 64 == 0


GOOD = header_bytes({"a": ("float32", (2, 3)), "b": ("bfloat16", (5,))}) + bytes(34)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(GOOD)),
    st.booleans(),
)
def test_damage_is_refused_or_harmless(
    changes: list[tuple[int, int]], length: int, cut: bool
) -> None:
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
    data = data[:length] if cut else data
    try:
        entries = _parse(bytes(data))
    except DamagedError:
        return
    start = 8 + int.from_bytes(data[:8], "little")
    ends = [start] + [entry.offset + entry.size_bytes for entry in entries.values()]
    assert max(ends) == len(data)
    assert all(entry.offset >= start for entry in entries.values())


class Expect(NamedTuple):
    """A header (or its JSON text), the bytes behind it, and the complaint."""

    header: dict[str, Any] | bytes
    data_bytes: int
    message: str


def _tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


REFUSED = [
    Expect(b"", 0, "its header is not a JSON object"),
    Expect(b" {}", 0, "its header is not a JSON object"),
    Expect(b"{", 0, "not valid JSON"),
    Expect(b'{"a":' + b"[" * 100_000, 0, "not valid JSON"),
    Expect(b'{"a":{},"a":{}}', 0, "duplicate key 'a'"),
    Expect({}, 1, "the header describes 0 bytes of data, the file has 1"),
    Expect({"a": _tensor()}, 7, "the header describes 8 bytes of data, the file has 7"),
    Expect({"a": _tensor(offsets=(1, 9))}, 9, 'tensor "a": its data follows a gap'),
    Expect({"a": _tensor(), "b": _tensor()}, 8, "its data overlaps the one before it"),
    Expect({"a": _tensor(), "b": _tensor(offsets=(4, 12))}, 12, "overlaps the one before it"),
    Expect({"a": _tensor(shape=(3,))}, 8, "has 8 bytes, F32 (3,) needs 12"),
    Expect({"a": _tensor(shape=(-2,))}, 8, "is not a list of up to 8 sizes"),
    Expect({"a": _tensor(shape=(True, 2))}, 8, "is not a list of up to 8 sizes"),
    Expect({"a": _tensor(shape=(2.0,))}, 8, "is not a list of up to 8 sizes"),
    Expect({"a": _tensor(shape=(1 << 63, 0))}, 0, "is not a list of up to 8 sizes"),
    Expect({"a": _tensor(shape=[1] * 9)}, 8, "is not a list of up to 8 sizes"),
    Expect({"a": _tensor(offsets=(8, 0))}, 8, "are not a range"),
    Expect({"a": _tensor(offsets=(0,))}, 8, "are not a range"),
    Expect({"a": _tensor(offsets=(0, 1 << 64))}, 8, "are not a range"),
    Expect({"a": _tensor(dtype="f32")}, 8, 'dtype "f32" is not known'),
    Expect({"a": _tensor(dtype="F4")}, 8, "has 8 bytes, F4 [2] needs 1"),
    Expect({"a": _tensor(dtype="F6_E2M3")}, 8, "needs 12 bits, no whole number"),
    Expect({"a": _tensor(dtype=4)}, 8, "dtype 4 is not known"),
    Expect({"a": {**_tensor(), "x": 1}}, 8, "expected the keys dtype, shape and data_offsets"),
    Expect({"a": []}, 0, "expected the keys dtype, shape and data_offsets"),
    Expect({"a\x1b[2J": _tensor()}, 8, 'tensor "a\\x1b[2J": its name is empty, too long, or has'),
    Expect({"": _tensor()}, 8, "its name is empty"),
    Expect({"a" * 600: _tensor()}, 8, "its name is empty, too long"),
    Expect({"__metadata__": {"a": 1}}, 0, "__metadata__ is not a map of strings"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.message[:30])
def test_refused(case: Expect) -> None:
    header = case.header if isinstance(case.header, bytes) else json.dumps(case.header).encode()
    with pytest.raises(DamagedError) as caught:
        parse_header(header, case.data_bytes, where="f")
    shown = str(caught.value).replace("[3]", "(3,)")
    assert shown.startswith("f: ")
    assert case.message in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off: 0 bytes cannot hold its header"),
        (b"\x01\x00", "cut off: 2 bytes"),
        (b"\xff" * 64, "cut off: 64 bytes"),
    ],
)
def test_cut_off_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=message):
        read_header(path)


def test_huge_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with path.open("wb") as file:
        file.write((33 << 20).to_bytes(8, "little"))
        file.truncate(8 + (33 << 20))
    with pytest.raises(DamagedError, match="its header of 34603008 bytes is above 33554432"):
        read_header(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="No such file"):
        read_header(tmp_path / "f.safetensors")
