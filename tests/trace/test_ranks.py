"""Blocks of weights' columns: sums that one process adds up, or the ranks of a parallel engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.studies.local import judge
from goldenctl.trace.calls import Calls, read_calls
from goldenctl.trace.run import TraceOptions, TraceSummary, write_run
from goldenctl.trace.weights import Book
from tests.trace.pretend_engine import Array, Habits, PretendEngine, Rank, WeightLog, wide

PROMPT = (5, 6, 7)
ALONE = Rank()


@pytest.fixture(scope="module")
def golden(traced_model: tuple[Path, Path]) -> GoldenFile:
    return open_golden(traced_model[1])


@pytest.fixture(scope="module")
def book(traced_model: tuple[Path, Path]) -> Book:
    return Book.of(Checkpoint.open(traced_model[0]))


@pytest.fixture
def written(
    golden: GoldenFile, book: Book, tmp_path: Path
) -> Callable[..., tuple[TraceSummary, GoldenFile]]:
    """Return a function that writes the run of logs."""

    def run(*logs: Calls) -> tuple[TraceSummary, GoldenFile]:
        folder, out = book.checkpoint.folder, tmp_path / "run.h5"
        summary = write_run(golden, folder, logs, out, options=TraceOptions(judge, book=book))
        return summary, open_golden(out)

    return run


def computed(
    golden: GoldenFile, book: Book, path: Path, habits: Habits, rank: Rank = ALONE
) -> Calls:
    """Have an engine take the prompt; return its log."""
    log = WeightLog(path)
    log.learn(book)
    config = load_config(book.checkpoint.folder)
    engine = PretendEngine(log, book.checkpoint, config, np.float32, habits, rank)
    for name in ("sin", "cos"):
        engine.tables[name] = np.array(golden.map(f"constants/rope_{name}"))
    engine.forward([PROMPT])
    log.end()
    return read_calls(path)


def two_ranks(golden: GoldenFile, book: Book, folder: Path, wrong_by: float = 0.0) -> list[Calls]:
    """Have two ranks take the prompt at once; the second one's sums may be wrong."""
    barrier, shares = threading.Barrier(2), [np.empty(0), np.empty(0)]

    def run(number: int) -> Calls:
        def total(x: Array) -> Array:
            shares[number] = wide(x).copy()
            barrier.wait()
            summed = shares[0] + shares[1]
            barrier.wait()
            return summed + number * wrong_by

        rank = Rank(number, 2, total)
        return computed(golden, book, folder / f"{number}.calls", Habits(), rank)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


@pytest.mark.parametrize("split", ["beta", "add", "outside"])
def test_sums_over_blocks_of_columns_are_the_layer_s_output(
    split: str, golden: GoldenFile, book: Book, written: Callable[..., Any], tmp_path: Path
) -> None:
    summary, run = written(computed(golden, book, tmp_path / "calls", Habits(split=split)))
    assert summary.trace.findings == ()
    cover = summary.trace.coverage
    assert (cover.found, cover.absent, cover.unexplained) == (cover.expected, 0, {})
    report = compare(golden, run, default_policy())
    assert report.ok, report.first_wrong
    assert all(t.local is not None and t.local.ok for t in report.tensors)
    said = [note for note in summary.trace.notes if "added outside" in note]
    assert len(said) == (2 if split == "outside" else 0)  # o_proj and down_proj


def test_a_block_that_meets_another_one_s_inputs_is_found(
    golden: GoldenFile, book: Book, written: Callable[..., Any], tmp_path: Path
) -> None:
    habits = Habits(split="add", swapped_blocks=True)
    summary, _ = written(computed(golden, book, tmp_path / "calls", habits))
    found = {str(finding): finding.kind for finding in summary.trace.findings}
    said = "layers.00.attention: columns 0-63 of o_proj's weight meet context's from 64 on"
    assert found[said] == "weight"


def test_the_ranks_of_an_engine_give_one_run(
    golden: GoldenFile, book: Book, written: Callable[..., Any], tmp_path: Path
) -> None:
    summary, run = written(*two_ranks(golden, book, tmp_path))
    cover = summary.trace.coverage
    assert (summary.trace.findings, cover.found, cover.absent) == ((), cover.expected, 0)
    report = compare(golden, run, default_policy())
    assert report.ok, report.first_wrong
    notes = "\n".join(summary.trace.notes)
    assert "process 1 (pid 7): " in notes
    assert "process 2 (pid 7): " in notes
    assert "otherwise" not in notes


def test_one_rank_alone_is_judged_by_what_it_has(
    golden: GoldenFile, book: Book, written: Callable[..., Any], tmp_path: Path
) -> None:
    summary, run = written(two_ranks(golden, book, tmp_path)[0])
    assert summary.trace.findings == ()
    cover = summary.trace.coverage
    said = f"{cover.absent} tensors are computed for some heads or rows alone, such as one rank's"
    assert f"{said}: they are not judged" in summary.trace.notes
    report = compare(golden, run, default_policy())
    assert {tensor.state for tensor in report.tensors} == {"passed", "missing"}


def test_ranks_that_differ_are_said(
    golden: GoldenFile, book: Book, written: Callable[..., Any], tmp_path: Path
) -> None:
    summary, _ = written(*two_ranks(golden, book, tmp_path, wrong_by=0.25))
    (said,) = [note for note in summary.trace.notes if "otherwise" in note]
    assert said.startswith("process 2 computes ")
    assert "such as layers.00.attention.o_proj" in said
