"""Attention as one op, caches in pages, and padded batches come back as the golden's tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.golden.steps import position_ids, steps, visible_tokens
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config, preset_config
from goldenctl.model.synth import synth_config
from goldenctl.studies.local import judge
from goldenctl.trace.calls import read_calls
from goldenctl.trace.run import TraceOptions, write_run
from goldenctl.trace.weights import Book
from tests.trace.pretend_engine import Habits, PretendEngine, Rows, WeightLog

pytestmark = pytest.mark.slow

# A token comes again: its values in the first layer are the same bytes.
ROWS = ((11, 12, 13, 12, 15), (401, 7, 402, 9, 402))
PADDED = Case("padded", ROWS, decode=1, forced=((300,), (9,)), padding=(2, 0))
EVEN = Case("even", ROWS, decode=1, forced=((300,), (9,)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attention") / "model"
    synth_config(replace(preset_config("tiny"), num_hidden_layers=2), folder)
    return folder


@pytest.fixture(scope="module")
def book(model: Path) -> Book:
    return Book.of(Checkpoint.open(model))


@pytest.fixture(scope="module")
def recorded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GoldenFile]:
    from goldenctl.reference.record import Recording, record

    folder = tmp_path_factory.mktemp("goldens")

    def golden(case: Case) -> GoldenFile:
        path = folder / f"{case.name}-{case.padding_side}.h5"
        if not path.exists():
            selection = Selection(logits="last", oracle="budget")
            given = (Checkpoint.open(model), load_config(model), [case], "float32")
            record(Recording(*given, selection=selection), path)
        return open_golden(path)

    return golden


@pytest.fixture
def traced(book: Book, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that has an engine compute passes, and judges it."""

    def run(
        golden: GoldenFile,
        habits: Habits,
        passes: Sequence[Rows],
        positions: Sequence[Any] = (),
        hidden: Any = None,
    ) -> tuple[Any, Any]:
        log = WeightLog(tmp_path / f"{len(list(tmp_path.iterdir()))}.calls")
        log.learn(book)
        folder = book.checkpoint.folder
        engine = PretendEngine(log, book.checkpoint, load_config(folder), np.float32, habits)
        engine.hidden_keys = hidden
        for name in ("sin", "cos"):
            engine.tables[name] = np.array(golden.map(f"constants/rope_{name}"))
        for number, ids in enumerate(passes):
            engine.forward(ids, positions[number] if positions else None)
        log.end()
        out = tmp_path / "run.h5"
        options = TraceOptions(judge, book=book)
        summary = write_run(golden, folder, [read_calls(log.path)], out, options=options)
        return summary, compare(golden, open_golden(out), default_policy())

    return run


def assert_right(summary: Any, report: Any) -> None:
    assert summary.trace.findings == ()
    assert (summary.trace.coverage.absent, summary.trace.coverage.unexplained) == (0, {})
    assert report.ok, report.first_wrong
    judged = [tensor for tensor in report.tensors if tensor.local is not None]
    assert len(judged) == summary.trace.coverage.found


def decoding(case: Case) -> list[Rows]:
    """Return the passes of a case without its padding."""
    visible = visible_tokens(case)
    rows = [
        [token for token, there in zip(row, shown, strict=False) if there]
        for row, shown in zip(case.token_ids, visible, strict=True)
    ]
    return [rows, [list(row) for row in case.forced]]


@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("case", [EVEN, PADDED], ids=lambda case: case.name)
def test_pages_come_back_in_the_order_of_their_tokens(
    case: Case, heads_first: bool, recorded: Callable[..., Any], traced: Callable[..., Any]
) -> None:
    habits = Habits(attention="paged", heads_first=heads_first)
    summary, report = traced(recorded(case), habits, decoding(case))
    assert summary.trace.coverage.fused == 2 * 2 * 2  # scores and probs, 2 layers, 2 steps
    assert_right(summary, report)


WRONG_PAGES = {
    "a length of one less": (
        Habits(attention="paged", lengths_off=-1),
        "layers.00.attention: sees 4 keys, expected 5",
    ),
    "tables in another order": (
        Habits(attention="paged", wrong_tables=True),
        "layers.00.attention: slot 0 of the cache of keys holds what was never written",
    ),
}


@pytest.mark.parametrize("name", WRONG_PAGES)
def test_what_pages_hold_otherwise_is_proved(
    name: str, recorded: Callable[..., Any], traced: Callable[..., Any]
) -> None:
    habits, said = WRONG_PAGES[name]
    summary, report = traced(recorded(EVEN), habits, decoding(EVEN))
    assert said in map(str, summary.trace.findings)
    assert not report.ok


@pytest.mark.parametrize("cache", ["calls", "memcpy"])
@pytest.mark.parametrize("attention", ["matrices", "flash", "one op"])
def test_a_token_that_comes_again_is_not_taken_for_a_wrong_slot(
    attention: str, cache: str, recorded: Callable[..., Any], traced: Callable[..., Any]
) -> None:
    habits = Habits(attention=attention, cache=cache)
    assert_right(*traced(recorded(EVEN), habits, [ROWS, [(300,), (9,)]]))


def test_attention_that_is_not_asked_to_be_causal_is_found(
    recorded: Callable[..., Any], traced: Callable[..., Any]
) -> None:
    habits = Habits(attention="flash", causal=False)
    summary, _ = traced(recorded(EVEN), habits, [ROWS, [(300,), (9,)]])
    found = {(f.op, f.kind, f.text, f.steps) for f in summary.trace.findings}
    said = "attention is not asked to be causal"
    assert found == {("context", "mask", said, ("even/00",))}


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_engine_that_computes_padding_is_judged_by_the_other_tokens(
    side: str, recorded: Callable[..., Any], traced: Callable[..., Any]
) -> None:
    case = replace(PADDED, padding_side=side)
    positions = [position_ids(step).tolist() for step in steps(case)]
    passes = [ROWS, [(300,), (9,)]]
    hidden = ~visible_tokens(case)
    habits = Habits(last_logits=False)
    assert_right(*traced(recorded(case), habits, passes, positions, hidden))
    summary, _ = traced(recorded(case), habits, passes, positions, np.zeros_like(hidden))
    said = re.compile(r"layers.00.attention: token \d sees the key of token \d, which is padding")
    assert any(said.fullmatch(str(finding)) for finding in summary.trace.findings)
