"""Goldens that the tests of verdicts share: a tiny random Qwen3 with its budgets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.selection import Selection
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.graph import Op, Sublayer
from goldenctl.model.recipe_config import config_from_recipe
from goldenctl.model.synth import synth
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, faulty_op
from goldenctl.places import sublayer_path
from goldenctl.reference.patch import Emulator
from goldenctl.reference.record import Recording, record
from goldenctl.replay.backend import Backend, open_backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.studies.diagnose import Diagnoser, Diagnosis

TOKENS = tuple(7 + 37 * i % 240 for i in range(12))


def record_tiny(
    folder: Path,
    golden: Path,
    *,
    dtype: str = "float32",
    selection: Selection | None = None,
    tokens: tuple[int, ...] = TOKENS,
    case: Case | None = None,
) -> GoldenFile:
    """Record a golden of the checkpoint in ``folder``, with budgets unless told otherwise."""
    checkpoint = Checkpoint.open(folder)
    recording = Recording(
        checkpoint=checkpoint,
        config=load_config(folder),
        cases=[case or Case("default", (tokens,), None)],
        dtype=dtype,
        selection=selection or Selection(oracle="budget"),
    )
    record(recording, golden)
    return open_golden(golden)


class Bench:
    """Single ops of one golden, computed on its recorded inputs, right or with faults."""

    def __init__(self, golden: GoldenFile, folder: Path) -> None:
        self.golden = golden
        self.config = config_from_recipe(golden.recipe["model"]["config"])
        self.graph = choose_sublayers(golden, self.config, None, fused=False)
        dtype = golden.recipe["dtype"]
        checkpoint = Checkpoint.open(folder)
        self.emulator = Emulator(golden, checkpoint, dtype)
        self.wide = Emulator(golden, checkpoint, oracle_dtype(dtype), through=dtype)

    def place(self, name: str) -> tuple[str, Sublayer, Op]:
        """Find ``layers.01.attention.q_rope``: its path, sublayer and op."""
        short, _, tap = name.rpartition(".")
        path = sublayer_path("default", 0, short)
        return path, self.graph[path], self.graph[path].producer(tap)

    def expected(self, name: str) -> NDArray[Any]:
        path, _, op = self.place(name)
        return self.golden.map(f"{path}/{op.output}")

    def faulty(self, name: str, *faults: str) -> NDArray[Any]:
        """Return the op's output with the named faults."""
        path, sublayer, op = self.place(name)
        for fault in faults:
            changed = faulty_op(FAULTS[fault], op, Context(self.config, sublayer))
            assert changed is not None, f"{fault} does not fit {name}"
            op = changed
        return self.emulator.output(path, sublayer, op).reshape(self.expected(name).shape)

    def diagnose(self, name: str, actual: NDArray[Any], **options: Any) -> Diagnosis:
        path, sublayer, op = self.place(name)
        return self.diagnoser(**options).diagnose(path, sublayer, op.output, actual)

    def diagnoser(self, **options: Any) -> Diagnoser:
        return Diagnoser(self.golden, self.emulator, **options)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint; not to be changed."""
    return synth("tiny", tmp_path_factory.mktemp("verdict") / "tiny")


@pytest.fixture(scope="session")
def golden_of(
    checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., GoldenFile]:
    """Return what records a golden of the tiny checkpoint, once for each set of choices."""
    folder = tmp_path_factory.mktemp("goldens")
    known: dict[tuple[str, str, str], GoldenFile] = {}

    def recorded(dtype: str, oracle: str = "budget", taps: str = "op") -> GoldenFile:
        key = (dtype, oracle, taps)
        if key not in known:
            known[key] = record_tiny(
                checkpoint_folder,
                folder / f"{'-'.join(key)}.h5",
                dtype=dtype,
                selection=Selection(taps=taps, oracle=oracle),
            )
        return known[key]

    return recorded


@pytest.fixture(scope="session")
def backend(harness: Path) -> Backend:
    """Return InfiniCore itself; ``harness`` makes sure that it is built."""
    assert harness.exists()
    return open_backend("infinicore")


@pytest.fixture(scope="session")
def bench_of(
    golden_of: Callable[..., GoldenFile], checkpoint_folder: Path
) -> Callable[[str], Bench]:
    """Return what computes single ops of the golden of a dtype."""
    return lambda dtype: Bench(golden_of(dtype), checkpoint_folder)
