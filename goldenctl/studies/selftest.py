"""The proof that verdicts can be trusted: every fault caught and named, every correct
alternative let pass, on one golden and a real backend.

Faults are injected one to an op in ``op`` replays, so a round tests every op at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from goldenctl import __version__
from goldenctl.diff.budget import Budget
from goldenctl.diff.finite import finite_rows
from goldenctl.diff.judge import compare, provenance
from goldenctl.diff.localize import culprits
from goldenctl.diff.padding import Padding
from goldenctl.diff.scopes import is_fused
from goldenctl.diff.tolerance import default_policy
from goldenctl.digests import algorithm_of
from goldenctl.errors import UsageError
from goldenctl.folders import scratch
from goldenctl.golden.composed import scope_of
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.layout import oracle_dtype
from goldenctl.golden.modes import BOTH, MODES
from goldenctl.golden.schema import BUDGET_SCOPES
from goldenctl.golden.times import now_utc
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import Op, Sublayer
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.faults import Context, Fault, faulty_op, together
from goldenctl.ops.inject import Injection
from goldenctl.places import place, plain_name
from goldenctl.records.report import Provenance, Report
from goldenctl.records.trials import Selftest, Trial, Verdict
from goldenctl.reference.alternatives import ALTERNATIVES
from goldenctl.reference.flash import FUSED, only_fused
from goldenctl.reference.otherwise import Otherwise
from goldenctl.reference.patch import Emulator
from goldenctl.replay.backend import Backend, open_backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.studies.diagnose import Diagnoser
from goldenctl.studies.gates import GATES, passes

SUBLAYER_ROUNDS = 24
_EQUAL_EPS = 64  # of a wider type: two ways of writing one formula are no further apart
_OPS_SCOPE = BUDGET_SCOPES.index("op")


class Tester:
    """Runs the selftest of one golden on one backend."""

    def __init__(
        self,
        golden: GoldenFile,
        checkpoint_path: Path,
        *,
        backend: Backend,
        layers: frozenset[int] | None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises UsageError for a golden without budgets or taps."""
        if golden.recipe.get("oracle", "none") == "none" or golden.recipe["taps"] != "op":
            message = f"{golden.path}: selftest needs budgets and the taps of every op"
            raise UsageError(message, hint="record it with --oracle --taps op")
        if any(name.endswith("/attention_mask") for name in golden.tensors):
            message = f"{golden.path}: selftest needs a golden without padding"
            raise UsageError(message, hint="record it without --batch")
        self._golden = golden
        self._path = checkpoint_path
        self._backend = backend
        self._layers = layers
        self._notify = notify
        self._config = golden.config
        self._graph = choose_sublayers(golden, self._config, layers, fused=False)
        dtype = golden.recipe["dtype"]
        checkpoint = Checkpoint.open(checkpoint_path)
        self._emulator = Emulator(golden, checkpoint, dtype)
        self._wide = Emulator(golden, checkpoint, oracle_dtype(dtype), through=dtype)
        self._diagnoser = Diagnoser(golden, self._emulator)
        self._tried_without: set[tuple[str, str]] = set()
        self._truths: dict[str, np.ndarray[Any, Any]] = {}
        self._finite = self._judgeable()

    def _judgeable(self) -> frozenset[str]:
        """Tensors whose every recorded value is finite: others tell nothing of a verdict.

        Raises UsageError when there are none.
        """
        names = [f"{path}/{op.output}" for path, s in self._graph.items() for op in s.ops]
        finite = [n for n in names if finite_rows(self._golden.map(n), Padding()).rows is None]
        if not finite:
            message = f"{self._golden.path}: selftest needs a golden with ops that are finite"
            raise UsageError(message, hint=self._golden.recipe.get("not_finite") or "")
        if left_out := len(names) - len(finite):
            self._notify(
                f"left out: {left_out} of {len(names)} ops, whose results are not all finite"
            )
        return frozenset(finite)

    def report(self) -> Report:
        """Run the selftest; return it as a report that every renderer can read."""
        result = self.run()
        backend = dict(self._backend.description)
        engine = Provenance(
            path="",
            kind="selftest",
            created_utc=now_utc(),
            tool_version=__version__,
            content_digest="",
            recipe={
                "backend": backend,
                "model": self._golden.recipe["model"],
                "layers": sorted(self._layers) if self._layers is not None else None,
            },
        )
        return Report(
            golden=provenance(self._golden),
            run=engine,
            policy=default_policy().name,
            mode=", ".join(MODES),
            sublayers=(),
            command="selftest",
            selftest=result,
        )

    def run(self) -> Selftest:
        """Inject everything, then everything that is right."""
        result = Selftest(dtype=self._golden.recipe["dtype"])
        rounds = list(self._rounds())
        with scratch() as folder:
            run_path = Path(folder) / "run.h5"
            for number, assigned in enumerate(rounds):
                self._notify(f"faults: round {number + 1} of {len(rounds)}")
                report, run = self._replayed(run_path, "op", tuple(assigned.values()))
                result.trials += self._trials(assigned, report, run)
            visible = {(t.fault, t.place): t.caught for t in result.visible}
            for number, assigned in enumerate(self._sublayer_rounds(rounds, visible)):
                self._notify(f"culprits: round {number + 1} of {SUBLAYER_ROUNDS}")
                report, _ = self._replayed(run_path, BOTH, tuple(assigned.values()))
                result.located += self._located(assigned, report, visible)
            for mode in MODES:
                self._notify(f"correct: the backend itself, mode {mode}")
                report, run = self._replayed(run_path, mode, ())
                self._take_correct(result, f"{self._backend.name}, {mode}", report, run)
            self._other_engines(result, run_path)
            self._alternatives(result, run_path)
        return result

    def _rounds(self) -> Iterator[dict[str, Injection]]:
        """Yield injections by tensor name, at most one for each op."""
        queues = {}
        for path, sublayer in self._graph.items():
            for op in sublayer.ops:
                name = f"{path}/{op.output}"
                if name not in self._finite:
                    continue
                context = Context(self._config, sublayer)
                fitting = [f for f in FAULTS.values() if faulty_op(f, op, context)]
                queues[name] = [Injection(f, name) for f in fitting]
        while any(queues.values()):
            yield {name: queue.pop(0) for name, queue in queues.items() if queue}

    def _sublayer_rounds(
        self, rounds: list[dict[str, Injection]], visible: Mapping[tuple[str, str], bool]
    ) -> Iterator[dict[str, Injection]]:
        """Yield injections by sublayer, one for each, walking through its visible faults."""
        queues: dict[str, list[Injection]] = {path: [] for path in self._graph}
        for assigned in rounds:
            for name, injection in assigned.items():
                if (injection.fault.name, injection.where) in visible:
                    queues[place(name).group].append(injection)
        for number in range(SUBLAYER_ROUNDS):
            yield {
                path: queue[number * len(queue) // SUBLAYER_ROUNDS]
                for path, queue in queues.items()
                if queue
            }

    def _located(
        self,
        assigned: Mapping[str, Injection],
        report: Report,
        caught: Mapping[tuple[str, str], bool],
    ) -> Iterator[Verdict]:
        """Locate as blame does: where the rounding of earlier ops hides a fault from the
        sublayer replay, the op replay has the word."""
        first: dict[str, str] = {}
        for tensor in culprits(report, self._graph):
            first.setdefault(tensor.sublayer, f"{tensor.sublayer}/{tensor.tap}")
        for path, injection in assigned.items():
            fault, place = injection.fault.name, injection.where
            found = first.get(path, place if caught[fault, place] else "")
            yield Verdict(fault, place, found == place)

    def _other_engines(self, result: Selftest, path: Path) -> None:
        """Fused attention, and each engine on one thread: other orders of the same sums."""
        torch_backend = open_backend("torch")
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for label, backend, attention, environment in (
            ("torch, sdpa", torch_backend, "sdpa", {}),
            ("torch, one thread", torch_backend, "eager", one_thread),
            (f"{self._backend.name}, one thread", self._backend, "eager", one_thread),
        ):
            self._notify(f"correct: {label}")
            for mode in (BOTH, "chain"):
                options = Options(mode=mode, layers=self._layers, attention=attention)
                with _environment(environment):
                    replay(self._golden, self._path, path, backend=backend, options=options)
                run = open_golden(path)
                report = compare(self._golden, run, default_policy())
                self._take_correct(result, f"{label}, {mode}", report, run)

    def _replayed(
        self, path: Path, mode: str, faults: tuple[Injection, ...]
    ) -> tuple[Report, GoldenFile]:
        options = Options(mode=mode, layers=self._layers, faults=faults)
        replay(self._golden, self._path, path, backend=self._backend, options=options)
        run = open_golden(path)
        return compare(self._golden, run, default_policy()), run

    def _trials(
        self, assigned: Mapping[str, Injection], report: Report, run: GoldenFile
    ) -> Iterator[Trial]:
        results = {tensor.name: tensor for tensor in report.tensors}
        for name, injection in assigned.items():
            path, tap = place(name).group, place(name).tap
            sublayer = self._graph[path]
            op = sublayer.producer(tap)
            changed = faulty_op(injection.fault, op, Context(self._config, sublayer))
            assert changed is not None
            actual, expected = run.map(name), self._golden.verify(name)
            truth = self._truth(path, sublayer, op)
            failed = not results[name].ok
            diagnosis = None
            if failed:
                diagnosis = self._diagnoser.diagnose(path, sublayer, tap, actual)
            causes = [f.name for c in diagnosis.causes for f in c.faults] if diagnosis else []
            yield Trial(
                fault=injection.fault.name,
                place=injection.where,
                op=op.kind,
                effect=self._effect(path, sublayer, changed, name),
                caught=failed,
                named=injection.fault.name in causes,
                causes=tuple(causes),
                held_out=self._without(injection.fault, path, sublayer, tap, actual)
                if failed
                else None,
                gates={
                    gate: not passes(rule, actual, expected, truth, self._golden.recipe["dtype"])
                    for gate, rule in GATES.items()
                },
            )

    def _without(
        self, fault: Fault, path: str, sublayer: Sublayer, tap: str, actual: np.ndarray[Any, Any]
    ) -> tuple[str, ...] | None:
        """Diagnose with a catalogue that lacks the fault, once for each fault and op."""
        if (fault.name, tap) in self._tried_without:
            return None
        self._tried_without.add((fault.name, tap))
        others = [f for f in FAULTS.values() if f != fault]
        diagnoser = Diagnoser(self._golden, self._emulator, faults=others)
        causes = diagnoser.diagnose(path, sublayer, tap, actual).causes
        wrong = [c for c in causes if not self._same(path, sublayer, tap, c.faults, fault)]
        return tuple(f.name for cause in wrong for f in cause.faults)

    def _same(
        self, path: str, sublayer: Sublayer, tap: str, faults: tuple[Fault, ...], fault: Fault
    ) -> bool:
        """Whether ``faults`` are ``fault`` by another name: equal but for the rounding of a wider
        type, as scores that are scaled twice and doubled, where hidden is four head_dim."""
        op, context = sublayer.producer(tap), Context(self._config, sublayer)
        ops = [together(each, op, context) for each in (faults, (fault,))]
        first, second = (self._wide.output(path, sublayer, each) for each in ops if each)
        apart = np.linalg.norm((first - second).astype(np.float64))
        return bool(apart <= _EQUAL_EPS * np.finfo(first.dtype).eps * np.linalg.norm(second))

    def _effect(self, path: str, sublayer: Sublayer, changed: Op, name: str) -> float:
        """How far the exactly computed fault moves the worst row, in units of rounding."""
        expected = self._golden.verify(name).astype(np.float64)
        faulty = self._wide.output(path, sublayer, changed).astype(np.float64)
        difference = faulty.reshape(expected.shape) - expected
        if not np.isfinite(difference).all():
            return float("inf")
        budget = self._budget(name)
        typical = np.maximum(budget.l2, budget.floor_l2)
        moved = np.linalg.norm(difference.reshape(-1, expected.shape[-1]), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(moved == 0, 0.0, moved / typical)
        return float(ratio.max())

    def _budget(self, name: str) -> Budget:
        path, tap = place(name).group, place(name).tap
        return Budget.of(self._golden.verify(f"{path}/budget/{tap}"), _OPS_SCOPE)

    def _truth(self, path: str, sublayer: Sublayer, op: Op) -> np.ndarray[Any, Any]:
        name = f"{path}/{op.output}"
        if name not in self._truths:
            shape = self._golden.info(name).shape
            self._truths[name] = self._wide.output(path, sublayer, op).reshape(shape)
        return self._truths[name]

    def _take_correct(self, result: Selftest, label: str, report: Report, run: GoldenFile) -> None:
        """Count what was said of something correct; a tensor that is equal in every bit proves
        nothing."""
        for tensor in report.compared:
            actual, name = run.tensors.get(tensor.name), plain_name(tensor.name)
            same = actual is not None and self._same_bytes(run, actual.name, name)
            if same or name not in self._finite:
                continue
            result.correct.append(Verdict(label, tensor.name, tensor.ok))
            by_op = scope_of(report.mode, tensor.name) == "op" and report.mode == BOTH
            if by_op and not is_fused(run, self._golden.info(name)):
                self._ask_gates(result, tensor.name, run.map(tensor.name))

    def _same_bytes(self, run: GoldenFile, actual: str, expected: str) -> bool:
        known = self._golden.info(expected).digest
        return run.digest_in(actual, algorithm_of(known)) == known

    def _ask_gates(self, result: Selftest, name: str, actual: np.ndarray[Any, Any]) -> None:
        path, tap = place(name).group, place(name).tap
        sublayer = self._graph[path]
        truth = self._truth(path, sublayer, sublayer.producer(tap))
        expected = self._golden.verify(name)
        result.correct_ops += 1
        for gate, rule in GATES.items():
            ok = passes(rule, actual, expected, truth, self._golden.recipe["dtype"])
            result.correct_gates[gate] = result.correct_gates.get(gate, 0) + (not ok)

    def _alternatives(self, result: Selftest, path: Path) -> None:
        """Every correct alternative as a run of its own, in every mode."""
        for label, alternative in (*ALTERNATIVES.items(), *FUSED.items()):
            self._notify(f"correct: {label}")
            fused = label in FUSED
            compute = only_fused(FUSED[label]) if fused else alternative
            other = Otherwise(self._golden, self._graph, self._emulator, compute, fused=fused)
            for mode in MODES:
                if mode != "op":  # op+sublayer says of ops what op does
                    run = other.run(path, mode, label)
                    report = compare(self._golden, run, default_policy())
                    self._take_correct(result, f"{label}, {mode}", report, run)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Let the processes started inside see ``changes``."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def spread(layers: Sequence[int], wanted: int = 4) -> frozenset[int]:
    """Return ``wanted`` of the layers, spread over the model's depth."""
    if len(layers) <= wanted:
        return frozenset(layers)
    return frozenset(layers[round(i * (len(layers) - 1) / (wanted - 1))] for i in range(wanted))
