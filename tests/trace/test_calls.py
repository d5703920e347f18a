"""A log of calls reads back as it was written, however it is torn or damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldenctl.errors import DamagedError
from goldenctl.exchange.records import RecordWriter
from goldenctl.trace.calls import Call, Copy, Free, read_calls
from tests.trace.logs import START, Array, Log, one_call


def test_a_call_reads_back_with_its_tensors_and_scalars(tmp_path: Path) -> None:
    y, x = one_call(tmp_path / "log")
    calls = read_calls(tmp_path / "log")
    (call,) = calls.calls
    assert (call.op, call.scalars, call.status) == ("RMSNorm", {"epsilon": 1e-6}, 0)
    np.testing.assert_array_equal(calls.after(call.args[0]), y)
    np.testing.assert_array_equal(calls.before(call.args[1]), x)
    assert (calls.start.program, calls.ended, calls.torn_bytes) == (("engine", "--fast"), True, 0)


VIEWS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(2, 0, 1),
    "every other row": lambda x: x[:, ::2],
    "one column": lambda x: x[:, :, 1:2],
    "broadcast": lambda x: np.broadcast_to(x[:1], (5, *x.shape[1:])),
    "reversed axes": lambda x: x.T,
    "a scalar": lambda x: x[0, 0, 0:1].reshape(()),
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32, np.bool_])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_any_view_reads_back_as_it_was_seen(
    tmp_path: Path, view: Callable[[Array], Array], dtype: Any
) -> None:
    seen = view(np.arange(60).reshape(3, 4, 5).astype(dtype))
    log = Log(tmp_path / "log")
    log.call("Add", log.arg("a", "in", seen))
    log.end()
    calls = read_calls(tmp_path / "log")
    (call,) = calls.calls
    read = calls.before(call.args[0])
    assert (read.dtype, read.shape) == (seen.dtype, seen.shape)
    np.testing.assert_array_equal(read, seen)


def test_a_matrix_and_its_transposed_view_are_one_content(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    log = Log(tmp_path / "log")
    log.call("Add", log.arg("a", "in", x), log.arg("b", "in", x.T))
    log.end()
    (call,) = read_calls(tmp_path / "log").calls
    assert call.args[0].before == call.args[1].before


def test_large_contents_are_joined_of_parts(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32)
    log = Log(tmp_path / "log")
    parts = [log.content(x[:4]), log.content(x[4:])]
    whole = "ab" * 16
    payload = b"".join(bytes.fromhex(part) for part in parts)
    log.writer.append({"kind": "join", "id": whole, "nbytes": 32}, payload)
    log.call("Add", {**log.arg("a", "in", x), "before": whole})
    log.end()
    calls = read_calls(tmp_path / "log")
    (call,) = calls.calls
    np.testing.assert_array_equal(calls.before(call.args[0]), x)


def test_a_weight_keeps_the_digests_of_its_rows(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    digests = np.array([1, 2, 3], "<u8")
    header = {"kind": "weight", "id": "cd" * 16, "row_bytes": 64, "form": "transposed"}
    log.writer.append(header, digests.tobytes())
    log.end()
    calls = read_calls(tmp_path / "log")
    weight = calls.weights["cd" * 16]
    np.testing.assert_array_equal(weight.digests, digests)
    assert (weight.row_bytes, weight.form) == (64, "transposed")
    assert not calls.holds(weight.content)


def test_events_come_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.call("Attention", number=1)
    log.call("Gemm", number=3)
    copy = {"kind": "copy", "number": 2, "thread": 0, "target": 8, "source": 16, "nbytes": 4}
    log.writer.append({**copy, "direction": "h2d"})
    log.writer.append({"kind": "free", "number": 4, "thread": 0, "pointer": 8})
    log.end()
    calls = read_calls(tmp_path / "log")
    assert [type(event) for event in calls.events] == [Call, Copy, Call, Free]
    assert [call.op for call in calls.calls] == ["Attention", "Gemm"]


@given(st.data())
def test_a_torn_log_keeps_what_was_whole(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        one_call(path)
        content = path.read_bytes()
        first = len(content.partition(b'"kind":"bytes"')[0]) - 24  # where the second record begins
        cut = data.draw(st.integers(first, len(content) - 1))
        path.write_bytes(content[:cut])
        calls = read_calls(path)
        assert not calls.ended
        for call in calls.calls:
            assert calls.after(call.args[0]).shape == (2, 3)


@given(st.data())
def test_a_changed_byte_is_damage_or_changes_only_values(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        one_call(path)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with suppress(DamagedError):
            calls = read_calls(path)
            shapes = [calls.after(call.args[0]).shape for call in calls.calls]
            assert shapes in ([], [(2, 3)])


ARG = {"name": "a", "io": "in", "dtype": "float32", "shape": [2], "strides": [1], "pointer": 0}
DAMAGE: dict[str, tuple[list[dict[str, Any]], str]] = {
    "empty": ([], "does not begin with the program"),
    "no start": ([{"kind": "end", "calls": 0}], "does not begin with the program"),
    "two starts": ([START, START], "begins twice"),
    "an unknown kind": ([START, {"kind": "pickle"}], "not understood"),
    "an unknown key": ([START, {"kind": "end", "calls": 0, "more": 1}], "not understood"),
    "a missing key": ([START, {"kind": "copy", "number": 1}], "not understood"),
    "a weight without digests": (
        [START, {"kind": "weight", "id": "a", "row_bytes": 4, "form": "rows"}],
        "no whole digests",
    ),
    "a join of nothing": ([START, {"kind": "join", "id": "a", "nbytes": 4}], "not there"),
}


@pytest.mark.parametrize(("records", "says"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_not_understood_is_damage(
    tmp_path: Path, records: list[dict[str, Any]], says: str
) -> None:
    with RecordWriter(tmp_path / "log") as writer:
        for record in records:
            writer.append(record)
    with pytest.raises(DamagedError, match=says):
        read_calls(tmp_path / "log")


ARGS = {
    "a negative size": ({"shape": [-1]}, "is not a shape"),
    "a huge shape": ({"shape": [1 << 50], "strides": [0]}, "is not a shape"),
    "a stride too few": ({"strides": []}, "1 sizes and 0 strides"),
    "too many axes": ({"shape": [1] * 17, "strides": [1] * 17}, "17 sizes"),
    "an unknown dtype": ({"dtype": "int4", "before": "ab"}, "dtype int4"),
}


@pytest.mark.parametrize(("changed", "says"), ARGS.values(), ids=ARGS)
def test_an_argument_that_cannot_be_is_damage(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    log = Log(tmp_path / "log")
    log.call("Add", {**ARG, **changed})
    log.end()
    with pytest.raises(DamagedError, match=says):
        read_calls(tmp_path / "log")


def test_a_content_of_another_size_than_its_tensor_is_damage(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    content = log.content(np.zeros(3, np.float32))
    log.call("Add", {**ARG, "before": content})
    log.end()
    calls = read_calls(tmp_path / "log")
    (call,) = calls.calls
    with pytest.raises(DamagedError, match="has 12 bytes, expected 8"):
        calls.before(call.args[0])
