"""Programs are traced as they are, whatever way they load InfiniCore, and what they computed
is in the log."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from goldenctl.infini.find import Install
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.synth import synth
from goldenctl.trace.build import build_shim
from goldenctl.trace.calls import Alloc, Copy, Free, read_calls
from goldenctl.trace.launch import Launch, launch
from goldenctl.trace.row_digests import checkpoint_rows
from goldenctl.trace.weights import Book, Piece
from tests.trace.conftest import HERE, Trace

A = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def test_a_linked_program_runs_as_it_would_and_its_calls_are_read_back(
    trace: Trace, engine: Path
) -> None:
    traced = trace(engine, "well")
    assert (traced.code, traced.stdout) == (0, "well\n")
    assert "traced 2 calls" in traced.stderr
    first, second = traced.calls.calls
    assert [arg.name for arg in first.args] == ["c", "a", "b"]
    assert [arg.io for arg in first.args] == ["out", "in", "in"]
    np.testing.assert_array_equal(traced.calls.before(first.args[1]), A)
    b = np.ones((2, 3), np.float32)
    b[1, 2] = 1
    np.testing.assert_array_equal(traced.calls.after(second.args[0]), A + b)
    assert first.args[1].before == second.args[1].before  # the same bytes are there once
    assert (traced.calls.start.program[1:], traced.calls.ended) == (("well",), True)


def test_a_program_that_looks_functions_up_itself_is_traced_too(
    trace: Trace, infini_install: Install
) -> None:
    traced = trace(sys.executable, HERE / "engine.py", infini_install.root)
    assert (traced.code, traced.stdout) == (0, "[11.0, 12.0, 13.0, 14.0, 15.0, 16.0]\n")
    (call,) = traced.calls.calls
    np.testing.assert_array_equal(traced.calls.after(call.args[0]), A + 10)


def test_a_library_that_python_loads_for_itself_alone_is_traced_too(
    trace: Trace, engine_library: Path
) -> None:
    script = f"import ctypes; ctypes.CDLL({str(engine_library)!r}).main(0, None)"
    traced = trace(sys.executable, "-c", script)
    assert (traced.code, traced.stdout) == (0, "well\n")
    assert len(list(traced.calls.calls)) == 2


def test_lookups_of_other_functions_are_those_of_their_caller(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "lookups")
    assert (traced.code, traced.stdout) == (0, "well\n")


def test_a_program_may_go_to_another_folder(
    trace: Trace, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    traced = trace("/bin/sh", "-c", f"cd /; {engine} well", options=("--keep-calls", "log.calls"))
    assert traced.code == 0
    assert len(list(traced.calls.calls)) == 2


def test_folders_with_spaces_and_colons_are_no_hindrance(
    engine: Path, infini_install: Install, tmp_path: Path
) -> None:
    odd = tmp_path / "a folder: mine"
    odd.mkdir()
    shim = shutil.copy(build_shim(infini_install), odd)
    ending = launch(Launch([str(engine), "well"], Path(shim), odd))
    assert (ending.status, [state.calls for state in ending.states]) == (0, [2])


def test_what_a_program_starts_is_traced(trace: Trace, engine: Path) -> None:
    traced = trace("/bin/sh", "-c", f"{engine} handle; {engine} well; true")
    assert (traced.code, traced.stdout) == (0, "well\n")
    assert len(list(traced.calls.calls)) == 2


def test_a_forked_process_has_a_log_of_its_own(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "fork")
    assert traced.code == 0
    calls = list(traced.calls.calls)  # the child made more calls than its parent
    assert len(calls) == 5
    assert traced.calls.before(calls[0].args[1])[0, 0] == 10
    assert "traced 7 calls of 2 processes" in traced.stderr
    parent = read_calls(traced.kept.with_name("log.calls.2"))
    assert len(list(parent.calls)) == 2


def test_threads_are_told_apart(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "threads")
    calls = list(traced.calls.calls)
    by_thread: dict[int, set[float]] = {}
    for call in calls:
        start = float(traced.calls.before(call.args[1])[0, 0])
        by_thread.setdefault(call.thread, set()).add(start)
    assert sorted(by_thread.values(), key=max) == [{1.0}, {100.0}, {200.0}, {300.0}, {400.0}]
    assert Counter(call.thread for call in calls).most_common()[-1][1] == 2
    assert len({call.number for call in calls}) == len(calls) == 82


def test_a_product_that_adds_to_what_was_there_shows_both(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "product")
    adds_to, writes = list(traced.calls.calls)[:2]
    x, w = (traced.calls.before(arg) for arg in adds_to.args[1:])
    assert (adds_to.scalars, w.shape) == ({"alpha": 2.0, "beta": 3.0}, (3, 4))
    assert (adds_to.args[0].io, writes.args[0].io) == ("inout", "out")
    before = traced.calls.before(adds_to.args[0])
    np.testing.assert_allclose(traced.calls.after(adds_to.args[0]), 2 * x @ w + 3 * before)
    np.testing.assert_allclose(traced.calls.after(writes.args[0]), x @ w)


def test_strided_and_broadcast_views_and_calls_in_place(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "views")
    rearrange, in_place = list(traced.calls.calls)[:2]
    expected = np.array([[7, 8, 9], [7, 8, 9]], np.float32)
    for arg, value in zip(rearrange.args, ("after", "before"), strict=True):
        np.testing.assert_array_equal(getattr(traced.calls, value)(arg), expected)
    target, a, _ = in_place.args
    assert target.pointer == a.pointer
    np.testing.assert_array_equal(traced.calls.before(a), A)
    np.testing.assert_array_equal(traced.calls.after(target), A + 1)


def test_attention_as_one_op_shows_queries_and_caches(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "attention")
    prefill, decode = list(traced.calls.calls)[:2]
    assert [call.op for call in (prefill, decode)] == ["Attention"] * 2  # not what it is made of
    assert (prefill.scalars["pos"], decode.scalars["pos"]) == (0, 2)
    out, q, k, v, k_cache, v_cache = decode.args
    assert [a.io for a in decode.args] == ["out", "in", "in", "in", "inout", "inout"]
    keys = np.concatenate([traced.calls.before(k_cache)[0, :2], traced.calls.before(k)[0]])
    values = np.concatenate([traced.calls.before(v_cache)[0, :2], traced.calls.before(v)[0]])
    np.testing.assert_array_equal(traced.calls.after(v_cache)[0], values)
    weights = np.exp(traced.calls.before(q)[:, 0] @ keys.T / 2)
    expected = weights @ values / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(traced.calls.after(out)[0], expected, rtol=1e-5)


def test_memory_of_infinirt_is_followed_and_not_read_beyond_its_end(
    trace: Trace, engine: Path
) -> None:
    traced = trace(engine, "memory")
    events = [e for e in traced.calls.events if isinstance(e, Alloc | Copy | Free)]
    alloc, into, out, free = events
    assert isinstance(alloc, Alloc)
    assert isinstance(into, Copy)
    assert isinstance(out, Copy)
    assert isinstance(free, Free)
    assert alloc.pointer == into.target == out.source == free.pointer
    assert (into.nbytes, into.direction, out.direction) == (24, "h2d", "d2h")
    add, beyond = list(traced.calls.calls)[:2]
    assert into.content == add.args[1].before  # the bytes that came are those that were added
    assert out.content == add.args[0].after
    assert beyond.args[2].left_out == "it ends beyond its allocation"


def test_weights_of_the_checkpoint_are_known_until_their_bytes_change(
    trace: Trace, engine: Path, traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint.open(traced_model[0])
    name = "model.embed_tokens.weight"
    weights = checkpoint.map(name).astype(np.float32)
    (tmp_path / "weights").write_bytes(weights.tobytes())
    traced = trace(engine, "weights", tmp_path / "weights")
    calls = traced.calls
    read = [call.args[2] for call in calls.calls if call.op == "Gemm"]
    known = [arg.before in calls.weights for arg in read]
    assert known == [True] * 5 + [False]  # found out at the first call after the change
    book = Book.of(checkpoint)
    weight = calls.weights[read[0].before or ""]
    assert book.pieces(weight) == (Piece((name,), 0, len(weights)),)
    np.testing.assert_array_equal(book.array(weight, read[0]), weights.T)
    np.testing.assert_array_equal(calls.before(read[5]), np.full_like(weights.T, 0.5))


@pytest.mark.parametrize("form", ["rows", "transposed"])
def test_a_block_of_a_weight_s_columns_is_known(
    form: str, trace: Trace, engine: Path, traced_model: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint.open(traced_model[0])
    name = "model.layers.1.self_attn.o_proj.weight"
    block = checkpoint.map(name)[:, 64:].astype(np.float32)
    held = block if form == "rows" else np.ascontiguousarray(block.T)
    (tmp_path / "weights").write_bytes(held.tobytes())
    traced = trace(engine, "weights", tmp_path / "weights")
    read = next(call.args[2] for call in traced.calls.calls if call.op == "Gemm")
    weight = traced.calls.weights[read.before or ""]
    book = Book.of(checkpoint)
    assert weight.form == form
    assert book.pieces(weight) == (Piece((name,), 0, 64, first_column=64),)
    np.testing.assert_array_equal(book.array(weight, read), held.T)


def test_a_checkpoint_is_digested_once(
    traced_model: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path))
    checkpoint = Checkpoint.open(traced_model[0])
    first = checkpoint_rows(checkpoint)

    def never(_matrix: np.ndarray) -> np.ndarray:
        raise AssertionError

    again = checkpoint_rows(checkpoint, never)
    for one, other in zip(first, again, strict=True):
        assert (one.tensor, one.row_bytes) == (other.tensor, other.row_bytes)
        np.testing.assert_array_equal(one.digests, other.digests)
    (kept,) = (tmp_path / "row-digests").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])  # damaged, so it is made again
    assert checkpoint_rows(checkpoint)[0].digests[0] == first[0].digests[0]
    assert checkpoint_rows(checkpoint, never)[-1].tensor == first[-1].tensor


def test_the_digests_of_rows_do_not_depend_on_the_order_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two such checkpoints have one fingerprint, and so one place in the cache."""
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "cache"))
    folder = synth("tiny", tmp_path / "a")
    other = shutil.copytree(folder, tmp_path / "b")
    weights = load_file(other / "model.safetensors")
    save_file(dict(sorted(weights.items(), reverse=True)), other / "model.safetensors")
    with Checkpoint.open(folder) as first, Checkpoint.open(other) as second:
        assert first.fingerprint() == second.fingerprint()
        for a, b in zip(checkpoint_rows(first), checkpoint_rows(second), strict=True):
            assert (a.tensor, a.first_column) == (b.tensor, b.first_column)
            np.testing.assert_array_equal(a.digests, b.digests)


@pytest.mark.parametrize(("ops", "kept"), [("add", 0), ("linear", 2), ("none", 0), ("Gemm", 2)])
def test_ops_filter_what_is_kept(trace: Trace, engine: Path, ops: str, kept: int) -> None:
    traced = trace(engine, "product", options=("--ops", ops))
    assert traced.code == 0
    calls = Counter(call.op for call in traced.calls.calls)
    assert calls["Gemm"] == kept
    assert traced.calls.end is not None
    assert traced.calls.end.skipped == 4 - sum(calls.values())


def test_a_bound_on_the_log_keeps_calls_without_their_contents(trace: Trace, engine: Path) -> None:
    traced = trace(engine, "well", options=("--max-log", "1"))
    assert [call.args[0].left_out for call in traced.calls.calls] == [
        "the log has reached its limit"
    ] * 2
