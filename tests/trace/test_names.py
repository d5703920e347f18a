"""Calls of right engines are named whatever their habits, and are never accused; what an engine
does differently from the model is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.errors import UsageError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.synth import synth
from goldenctl.records.report import Report
from goldenctl.studies.local import judge
from goldenctl.studies.trace_blame import blame_run
from goldenctl.trace.calls import read_calls
from goldenctl.trace.opmap import OpMap, load_map
from goldenctl.trace.run import TraceOptions, TraceSummary, write_run
from goldenctl.trace.weights import Book
from tests.trace.pretend_engine import Habits, PretendEngine, Rows, WeightLog

pytestmark = pytest.mark.slow

PROMPT = (11, 12, 13, 14, 15)
PAIR = (PROMPT, (401, 7, 402, 9, 403))
FORCED = ((300, 8), (9, 301))
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth("tiny", tmp_path_factory.mktemp("names") / "tiny", 1)


@pytest.fixture(scope="module")
def book(model: Path) -> Book:
    return Book.of(Checkpoint.open(model))


@pytest.fixture(scope="module")
def recorded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GoldenFile]:
    """Return a function that records a case once for each dtype."""
    from goldenctl.reference.record import Recording, record

    folder, made = tmp_path_factory.mktemp("goldens"), {}

    def golden(case: Case, dtype: str = "float32") -> GoldenFile:
        key = (case, dtype)
        if key not in made:
            path = folder / f"{len(made)}.h5"
            recording = Recording(
                Checkpoint.open(model),
                load_config(model),
                [case],
                dtype,
                selection=Selection(logits="last", oracle="budget"),
            )
            record(recording, path)
            made[key] = open_golden(path)
        return made[key]

    return golden


@pytest.fixture
def traced(model: Path, book: Book, tmp_path: Path) -> Callable[..., tuple[TraceSummary, Report]]:
    """Return a function that has an engine of such habits compute passes, and judges it."""

    def run(
        golden: GoldenFile,
        habits: Habits,
        *passes: Rows,
        dtype: str = "float32",
        warm_up: Rows = (),
        ops: OpMap | None = None,
    ) -> tuple[TraceSummary, Report]:
        log = WeightLog(tmp_path / f"{len(list(tmp_path.iterdir()))}.calls")
        log.learn(book)
        checkpoint = Checkpoint.open(model)
        config = load_config(model)
        for each in ([warm_up], passes):
            engine = PretendEngine(log, checkpoint, config, DTYPES[dtype], habits)
            for name in ("sin", "cos"):
                table = np.array(golden.map(f"constants/rope_{name}"))
                engine.tables[name] = table.astype(engine.dtype)
            for ids in each:
                if ids:
                    engine.forward(ids)
        log.end()
        path = log.path.with_suffix(".h5")
        summary = write_run(
            golden,
            model,
            [read_calls(log.path)],
            path,
            options=TraceOptions(judge, book=book, ops=ops or OpMap()),
        )
        return summary, compare(golden, open_golden(path), default_policy())

    return run


def run_of(folder: Path) -> GoldenFile:
    """Return the run that was written last."""
    return open_golden(max(folder.glob("*.h5"), key=lambda path: int(path.stem)))


def decoding(rows: int = 2, **changed: Any) -> Case:
    ids, forced = PAIR[:rows], FORCED[:rows]
    return replace(Case("words", ids, decode=2, forced=forced), **changed)


def steps(rows: int) -> list[Rows]:
    return [PAIR[:rows], *([(row[n],) for row in FORCED[:rows]] for n in range(2))]


RIGHT = {
    "fused": Habits(),
    "one product each": Habits(fused_products=False),
    "residual in the norm": Habits(add_in_norm=True),
    "silu and mul": Habits(gate="silu_and_mul"),
    "flash": Habits(attention="flash"),
    "cache by memcpy": Habits(cache="memcpy"),
    "all of them": Habits(True, True, "silu_and_mul", "flash", "memcpy"),
}


@pytest.mark.parametrize(
    ("name", "rows"), [("fused", 1), *((name, 2) for name in RIGHT)], ids=lambda value: str(value)
)
def test_a_right_engine_passes_whatever_its_habits(
    name: str, rows: int, recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    summary, report = traced(recorded(decoding(rows)), RIGHT[name], *steps(rows))
    assert summary.trace.findings == ()
    cover = summary.trace.coverage
    fused = 3 * 2 * 4 if RIGHT[name].attention == "flash" else 0  # scores and probs, 4 layers
    assert (cover.expected, cover.fused, cover.absent) == (cover.found + fused, fused, 0)
    assert (report.ok, report.mode) == (True, "trace"), report.first_wrong
    judged = [tensor for tensor in report.tensors if tensor.local is not None]
    assert len(judged) == cover.found
    assert all(tensor.local.ok for tensor in judged)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_right_engine_passes_in_16_bits(
    dtype: str, recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    golden = recorded(decoding(), dtype)
    summary, report = traced(golden, Habits(add_in_norm=True), *steps(2), dtype=dtype)
    assert (summary.trace.findings, report.ok) == ((), True), report.first_wrong
    assert {tensor.actual_dtype for tensor in report.compared} == {dtype}


def test_an_engine_whose_float16_truncates_is_right_by_itself(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    golden = recorded(decoding(1), "float16")
    _, report = traced(golden, Habits(truncates=True), PAIR[:1], dtype="float16")
    shares = {t.tap: t.local.share for t in report.tensors if t.local is not None}
    assert max(shares.values()) < 0.5  # 0.61 when the bias counts in rows


def test_an_engine_may_take_the_prompt_in_other_chunks_than_the_golden(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    whole, chunked = recorded(decoding(1)), recorded(decoding(1, prefill_chunk=2))
    chunks: list[Rows] = [[PROMPT[:2]], [PROMPT[2:4]], [PROMPT[4:]]]
    for golden, passes in ((whole, [*chunks, *steps(1)[1:]]), (chunked, steps(1))):
        summary, report = traced(golden, Habits(), *passes)
        assert (summary.trace.findings, report.ok) == ((), True), report.first_wrong
        assert summary.trace.coverage.absent == 0


def test_a_warm_up_is_left_out(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    summary, report = traced(recorded(decoding(1)), Habits(), *steps(1), warm_up=[(1, 2, 3)])
    assert (summary.trace.findings, report.ok) == ((), True)
    assert summary.trace.notes == ("1 other forward passes, such as a warm-up, are left out",)


def test_steps_that_the_engine_did_not_take_are_not_missing(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    summary, report = traced(recorded(decoding(1)), Habits(), steps(1)[0])
    assert (summary.steps, report.ok) == (("words/00",), True)
    assert report.left_out == 2 * 11


def test_other_token_ids_are_named_first(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    summary, report = traced(recorded(decoding(1)), Habits(), [(1, *PROMPT)])
    (finding,) = summary.trace.findings
    assert str(finding) == (
        "embedding: token ids differ: the engine puts 1 before them, such as a BOS"
    )
    assert not report.ok


def test_another_token_of_a_decode_step_is_said_and_that_step_not_judged(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    summary, report = traced(recorded(decoding(1)), Habits(), steps(1)[0], [(77,)])
    assert summary.steps == ("words/00",)
    assert summary.trace.notes == (
        "words/01: token 5 is 77, the golden has 300, so this step is not judged",
    )
    assert report.ok


WRONG = {
    "keys of another layer": (
        Habits(shared_cache=True, cache="memcpy"),
        "layers.00.attention: scores reads layers.03.attention.k_rope in place of k_rope",
        ("scores", "cache"),
    ),
    "a slot too early": (
        Habits(keys_early=1, cache="memcpy"),
        "layers.00.attention: slot 4 of the cache holds the key of token 5",
        ("scores", "cache"),
    ),
    "no rope": (
        Habits(skip=frozenset({"RoPE"})),
        "layers.00.attention: no rope between k_norm and scores: k_rope is never called",
        ("k_rope", "missing"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_an_engine_does_otherwise_is_proved(
    name: str, recorded: Callable[..., GoldenFile], traced: Callable[..., Any]
) -> None:
    habits, said, (op, kind) = WRONG[name]
    summary, report = traced(recorded(decoding(1)), habits, *steps(1))
    found = {str(finding): (finding.op, finding.kind) for finding in summary.trace.findings}
    assert found.get(said) == (op, kind), found
    assert not report.ok


def test_a_kernel_that_is_wrong_by_itself_is_the_culprit_and_its_bug_named(
    recorded: Callable[..., GoldenFile],
    traced: Callable[..., Any],
    model: Path,
    tmp_path: Path,
) -> None:
    golden = recorded(decoding(1))
    summary, report = traced(golden, Habits(pairs=True), PAIR[:1])
    assert summary.trace.findings == ()
    culprits = {t.tap for t in report.tensors if t.part == "culprit"}
    victims = {t.tap for t in report.tensors if t.part == "victim"}
    assert culprits == {"q_rope", "k_rope"}
    assert {"scores", "probs", "down_proj"} <= victims
    blamed = blame_run(
        golden, run_of(tmp_path), model, policy=default_policy(), notify=lambda _text: None
    )
    assert {culprit.tap for culprit in blamed.culprits} == culprits
    assert [cause.faults for cause in blamed.culprits[0].causes] == [("rope_interleaved",)]
    assert {skipped for culprit in blamed.culprits for skipped in culprit.skipped} == set()
    assert blamed.command == "blame"
    wrong = sum(tensor.share > 1 for tensor in report.compared)
    said = "a chain in PyTorch with 8 bugs put in differs from the engine in 0 tensors"
    assert blamed.findings.note == f"{said}, without in {wrong}"


def test_two_traces_are_compared_with_each_other(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any], tmp_path: Path
) -> None:
    golden = recorded(decoding(1))
    traced(golden, Habits(), PAIR[:1])
    first = run_of(tmp_path)
    traced(golden, Habits(add_in_norm=True), PAIR[:1])
    same = compare(first, run_of(tmp_path), default_policy())
    assert (same.ok, same.golden.kind, same.run.kind) == (True, "run", "run"), same.first_wrong
    traced(golden, Habits(pairs=True), PAIR[:1])
    moved = compare(first, run_of(tmp_path), default_policy())
    assert moved.first_wrong is not None
    assert moved.first_wrong.tap == "q_rope"


def test_a_map_says_what_an_operator_of_the_engine_s_own_is(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any], tmp_path: Path
) -> None:
    golden, habits = recorded(decoding(1)), Habits(gate="own")
    summary, report = traced(golden, habits, PAIR[:1])
    assert summary.trace.coverage.unexplained == {"infiniopOwnGate": 4}
    assert (report.first_wrong.tap, report.first_wrong.state) == ("swiglu", "missing")
    assert summary.trace.findings == ()
    listed = "\n".join(summary.listing)
    assert "# infiniopOwnGate, 4 calls, the first: out y float32 [5, 160]; in closed" in listed
    path = tmp_path / "ops.toml"
    entry = 'function = "infiniopOwnGate"\nas = "SwiGLU"\nargs = ["y", "open", "closed"]\n'
    path.write_text(f"map_version = 1\n[[op]]\n{entry}")
    summary, report = traced(golden, habits, PAIR[:1], ops=load_map(path))
    assert (summary.trace.coverage.unexplained, report.ok) == ({}, True), report.first_wrong


def test_a_map_says_what_single_tensors_are(
    recorded: Callable[..., GoldenFile], traced: Callable[..., Any], tmp_path: Path
) -> None:
    golden, habits = recorded(decoding(1)), Habits(gate="own")
    listed = "\n".join(traced(golden, habits, PAIR[:1])[0].listing)
    absent = re.findall(r"^#   (layers\.\d\d\.mlp\.swiglu)$", listed, re.M)
    calls = re.findall(r"^#   (\d+): infiniopOwnGate: out y float32 \[5, 160\]", listed, re.M)
    assert (len(absent), len(calls)) == (4, 4)
    path = tmp_path / "tensors.toml"
    entries = [
        f'[[tensor]]\ncalls = [{call}]\ntensor = "y"\nis = "{name}"\n'
        for call, name in zip(calls, absent, strict=True)
    ]
    path.write_text("map_version = 1\n" + "".join(entries))
    summary, report = traced(golden, habits, PAIR[:1], ops=load_map(path))
    cover = summary.trace.coverage
    assert (cover.unexplained, cover.absent, report.ok) == ({}, 0, True), report.first_wrong
    path.write_text(path.read_text().replace("mlp.swiglu", "mlp.gate_proj", 1))
    summary, _ = traced(golden, habits, PAIR[:1], ops=load_map(path))
    assert [note for note in summary.trace.notes if "not taken" in note] == []
    assert summary.trace.findings != ()  # gate_proj is then read as down_proj's input


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (("1", "y", "layers.09.mlp.swiglu"), "layers.09.mlp.swiglu: is not a tensor of the golden"),
        (("1", "y", "layers.00.attention.probs"), "probs: does not lie token by token"),
        (("9999", "y", "layers.00.mlp.swiglu"), "call 9999 is not in the log"),
        (("1", "z", "layers.00.mlp.swiglu"), "call 1 has no z, but y, x, w"),
    ],
)
def test_a_map_of_tensors_that_are_not_there_is_one_line(
    entry: tuple[str, str, str],
    said: str,
    recorded: Callable[..., GoldenFile],
    traced: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / "tensors.toml"
    call, tensor, place = entry
    path.write_text(
        f'map_version = 1\n[[tensor]]\ncalls = [{call}]\ntensor = "{tensor}"\nis = "{place}"\n'
    )
    with pytest.raises(UsageError, match=re.escape(said)):
        traced(recorded(decoding(1)), Habits(), PAIR[:1], ops=load_map(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("map_version = 2", "map_version is 2, expected 1"),
        ("map", "not a map of operators"),
        (
            'map_version = 1\n[[op]]\nfunction = "f"\nas = "Sort"\nargs = []',
            "f: as 'Sort' is not known",
        ),
        (
            'map_version = 1\n[[op]]\nfunction = "f"\nas = "Add"\nargs = ["a"]',
            "f: args stand for c, a, b: expected 3, got 1",
        ),
    ],
)
def test_a_wrong_map_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ops.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(f"{path}: {said}")):
        load_map(path)
