"""Execution of a replay's plan: by one program or several, from where an interrupted
replay stopped, or again and again in other orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from goldenctl.golden.journal import Journal
from goldenctl.golden.writer import GoldenWriter
from goldenctl.ops.plan import Plan
from goldenctl.places import owner, tap_of
from goldenctl.records.determinism import Determinism
from goldenctl.replay.backend import Backend
from goldenctl.replay.determinism import (
    COMPUTED,
    POISONS,
    Condition,
    Evidence,
    Signatures,
    conditions,
    experiment,
    failure_signature,
    findings,
)
from goldenctl.replay.share import shares_of, thread_share
from goldenctl.replay.supervise import Execution, Finished, Outcome, accepts, execute

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Launcher:
    """A plan, the backend that executes it, and the run file that it fills."""

    backend: Backend
    plan: Plan
    writer: GoldenWriter
    timeout_s: float
    progress: Progress

    def once(
        self, *, workers: int, memory_bytes: int | None, journal: Journal | None
    ) -> tuple[Execution, dict[str, str]]:
        """Execute what the journal does not say to be finished, by several programs at once.

        Returns the execution of the whole plan and the digests that are known of it. Raises
        UsageError when a sublayer needs more memory than is allowed.
        """
        names = [sublayer.name for sublayer in self.plan.sublayers]
        kept = journal.finished if journal is not None else {}
        todo = [index for index, name in enumerate(names) if name not in kept]
        execution = Execution(outcomes=[Outcome() for _ in names])
        if todo:
            shares = shares_of(self.plan, todo, workers=workers, memory_bytes=memory_bytes)
            execution = execute(
                self.backend.command,
                self.plan,
                timeout_s=self.timeout_s,
                finished=self._noted(journal, len(names) - len(todo)),
                shares=shares,
                environment=thread_share(len(shares)),
                inherited=() if journal is None else (journal.lock,),
            )
        digests: dict[str, str] = {}
        for index, name in enumerate(names):
            if journal is not None and name in journal.finished:
                entry = journal.finished[name]
                kept_ns = (entry.rest[key] for key in ("ns", "op_ns", "iqr_ns"))
                execution.outcomes[index] = Outcome(*kept_ns)
                execution.program = execution.program or entry.rest["program"]
                execution.quirks = execution.quirks or entry.rest["quirks"]
                digests |= entry.digests
        return execution, digests

    def shuffled(
        self, *, rounds: int, seed: int, isolated_ops: bool
    ) -> tuple[Execution, Determinism]:
        """Execute the plan in passes of different order and pattern; the run file keeps the last.

        Returns the last execution and what the passes show, for the run's recipe.
        """
        plan = replace(self.plan, repeat=1)
        arguments = ("--poison", POISONS[1])
        poisons = accepts(self.backend.command, plan, arguments, timeout_s=self.timeout_s)
        made = conditions(len(plan.sublayers), rounds=rounds, seed=seed, poisons=poisons)
        last = Execution()
        done = 0

        def run_pass(condition: Condition) -> Signatures:
            nonlocal last, done
            self.writer.clear()
            signatures: dict[int, Mapping[str, str]] = {}

            def finished(execution: Execution, index: int) -> None:
                signatures[index] = self._signature(index, execution.outcomes[index])
                self.progress(len(signatures), len(plan.sublayers), f"pass {done}")

            done += 1
            last = execute(
                self.backend.command,
                plan,
                timeout_s=self.timeout_s,
                finished=finished,
                shares=[condition.order],
                arguments=("--poison", condition.poison) if poisons else (),
            )
            return signatures

        evidence = experiment(made, run_pass)
        return last, self._determinism(evidence, seed, poisons, isolated_ops)

    def _determinism(
        self, evidence: Evidence, seed: int, poisons: bool, isolated_ops: bool
    ) -> Determinism:
        named = tuple(
            replace(found, sublayer=self.plan.sublayers[index].name)
            for index, found in findings(evidence, isolated_ops=isolated_ops)
        )
        kinds = ("plain", "shuffled", "poisoned")
        passes = {kind: evidence.count(kind) for kind in kinds}
        return Determinism(passes, seed, poisons, named)

    def _signature(self, index: int, outcome: Outcome) -> dict[str, str]:
        """What the run file holds of a sublayer that has just finished."""
        sublayer = self.plan.sublayers[index]
        if outcome.failure is not None:
            tap = str(outcome.failure.get("tap", sublayer.ops[0].tap))
            return {tap: failure_signature(outcome.failure)}
        signature = {op.tap: COMPUTED for op in sublayer.ops}
        for name in self._stored(sublayer.name):
            signature[tap_of(name)] = self.writer.digest(name)
        return signature

    def _stored(self, sublayer: str) -> list[str]:
        """The tensors that the run file holds of a sublayer."""
        return [name for name in self.writer.tensors if owner(name) == sublayer]

    def _noted(self, journal: Journal | None, before: int) -> Finished:
        """Note each sublayer that finishes: in the journal, and for the one who watches."""
        seen: set[int] = set()

        def finished(execution: Execution, index: int) -> None:
            name, outcome = self.plan.sublayers[index].name, execution.outcomes[index]
            if journal is not None and outcome.failure is None:
                self._journal(journal, name, outcome, execution)
            elif journal is not None and name in journal.finished:
                journal.withdraw(name)
            seen.add(index)
            self.progress(before + len(seen), len(self.plan.sublayers), name)

        return finished

    def _journal(self, journal: Journal, name: str, outcome: Outcome, execution: Execution) -> None:
        self.writer.sync()
        rest = {
            "ns": outcome.ns,
            "op_ns": outcome.op_ns,
            "iqr_ns": outcome.iqr_ns,
            "program": execution.program,
            "quirks": execution.quirks,
        }
        digests = {tensor: self.writer.digest(tensor) for tensor in self._stored(name)}
        journal.add(name, digests, rest=rest)
