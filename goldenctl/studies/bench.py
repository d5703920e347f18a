"""Timing of backends against each other: interleaved passes, medians, spreads, ratios.

A machine's speed drifts within minutes, so what is compared is run in turn: every pass runs
each backend once, in alternating order, and a ratio is taken within a pass. One pass before the
first warms up files and caches and counts for nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile
from goldenctl.model.graph import Op, Sublayer, decoder
from goldenctl.ops.plan import Plan
from goldenctl.places import place_of, short_name
from goldenctl.replay.backend import Backend, parse_device
from goldenctl.replay.bind import Binder, Patches, Source
from goldenctl.replay.supervise import Execution, execute

BENCH_VERSION = 1
MIN_PASSES = 3
# A ratio whose quartiles lie further apart than this, relative to it, says nothing.
MAX_SPREAD = 0.25
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Entrant:
    """One backend on one device, by the label it is shown under."""

    label: str
    backend: Backend
    device: str


class Spread(msgspec.Struct, frozen=True):
    """Quartiles over the passes: of nanoseconds, or of a ratio."""

    low: float
    median: float
    high: float

    @property
    def relative(self) -> float:
        """The distance of the quartiles in parts of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


class Step(msgspec.Struct, frozen=True):
    """All whole steps of a kind, ``prefill`` or ``decode``: their tokens and time."""

    kind: str
    tokens: int
    ns: Spread

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / (self.ns.median / 1e9) if self.ns.median else 0.0


class Result(msgspec.Struct, frozen=True):
    """One entrant's times: of everything, of whole steps, by kind of op and by sublayer.

    ``failed`` are sublayers that failed on it in some pass; they count for nobody.
    """

    label: str
    device: str
    program: str
    total_ns: Spread
    steps: tuple[Step, ...]
    ops: dict[str, Spread]
    sublayers: dict[str, Spread]
    failed: tuple[str, ...] = ()


class Comparison(msgspec.Struct, frozen=True):
    """How many times as long ``label`` takes as ``base``, as a ratio of each pass.

    ``verdict`` is ``faster``, ``slower``, ``level`` (the quartiles enclose 1), ``noisy`` (they
    lie too far apart to conclude anything) or ``few`` (passes).
    """

    label: str
    base: str
    ratio: Spread
    verdict: str


class Bench(msgspec.Struct, frozen=True):
    """What a benchmark measured."""

    golden: str
    dtype: str
    passes: int
    launches: int
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    bench_version: int = BENCH_VERSION


@dataclass(frozen=True)
class Settings:
    """How often is measured: passes over all entrants, and launches of each op in a pass."""

    passes: int = 5
    launches: int = 3
    timeout_s: float = 600.0


def bench(
    source: Source,
    entrants: Sequence[Entrant],
    *,
    dtype: str,
    settings: Settings,
    progress: Progress = lambda *_: None,
) -> Bench:
    """Time every entrant; nothing is stored. Raises what a backend that cannot start raises."""
    plan = _plan(source, dtype, settings.launches)
    made: list[list[Execution]] = [[] for _ in entrants]
    count, done = (settings.passes + 1) * len(entrants), 0
    for number in range(settings.passes + 1):
        turn = range(len(entrants)) if number % 2 == 0 else reversed(range(len(entrants)))
        for index in turn:
            entrant = entrants[index]
            device, device_id = parse_device(entrant.device)
            execution = execute(
                entrant.backend.command,
                msgspec.structs.replace(plan, device=device, device_id=device_id),
                timeout_s=settings.timeout_s,
            )
            made[index] += [execution] if number else []
            done += 1
            progress(done, count, entrant.label)
    sound = _sound(plan, made)
    results = [
        _result(source, entrant, executions, sound)
        for entrant, executions in zip(entrants, made, strict=True)
    ]
    totals = [[sum(e.outcomes[i].ns for i in sound) for e in executions] for executions in made]
    return Bench(
        golden=str(source.golden.path),
        dtype=dtype,
        passes=settings.passes,
        launches=settings.launches,
        results=tuple(results),
        comparisons=tuple(
            compared(entrant.label, entrants[0].label, times, totals[0])
            for entrant, times in zip(entrants[1:], totals[1:], strict=True)
        ),
    )


def compared(
    label: str, base: str, times: Sequence[float], base_times: Sequence[float]
) -> Comparison:
    """Compare the times of two entrants, pass by pass."""
    pairs = [(t, b) for t, b in zip(times, base_times, strict=True) if b > 0]
    ratio = Spread.of([t / b for t, b in pairs]) if pairs else Spread(0.0, 0.0, 0.0)
    if len(pairs) < MIN_PASSES:
        return Comparison(label, base, ratio, "few")
    if ratio.relative > MAX_SPREAD:
        return Comparison(label, base, ratio, "noisy")
    if ratio.low <= 1.0 <= ratio.high:
        return Comparison(label, base, ratio, "level")
    return Comparison(label, base, ratio, "faster" if ratio.median < 1.0 else "slower")


def _plan(source: Source, dtype: str, launches: int) -> Plan:
    """A plan that stores nothing; its device is the entrant's."""
    path = source.golden.path
    binder = Binder(
        source,
        mode="sublayer",
        dtype=dtype,
        run_path=path,
        offsets={},
        patches=Patches(path, _no_emulation),
    )
    sublayers = binder.sublayers()
    files = tuple(msgspec.structs.replace(file, write=False) for file in binder.files)
    return Plan("cpu", 0, dtype, files, sublayers, repeat=launches)


def _no_emulation(path: str, _: Sublayer, op: Op) -> NDArray[Any]:
    msg = f"{path}: a benchmark has no faulty op {op.output}"
    raise ValueError(msg)


def _sound(plan: Plan, made: Sequence[Sequence[Execution]]) -> list[int]:
    """The sublayers that failed in no pass of any entrant."""
    every = [execution for executions in made for execution in executions]
    return [
        index
        for index in range(len(plan.sublayers))
        if all(execution.outcomes[index].failure is None for execution in every)
    ]


def _result(
    source: Source, entrant: Entrant, executions: Sequence[Execution], sound: Sequence[int]
) -> Result:
    paths = list(source.sublayers)
    ops: dict[str, list[float]] = {}
    for number, execution in enumerate(executions):
        for index in sound:
            sublayer = source.sublayers[paths[index]]
            for tap, ns in execution.outcomes[index].op_ns.items():
                kind = sublayer.producer(tap).kind
                ops.setdefault(kind, [0.0] * len(executions))[number] += ns
    sublayers = {
        paths[index]: Spread.of([e.outcomes[index].ns for e in executions]) for index in sound
    }
    failed = {
        paths[index]
        for execution in executions
        for index, outcome in enumerate(execution.outcomes)
        if outcome.failure is not None
    }
    return Result(
        label=entrant.label,
        device=entrant.device,
        program=executions[-1].program,
        total_ns=Spread.of([sum(e.outcomes[i].ns for i in sound) for e in executions]),
        steps=tuple(_steps(source, executions, set(sound))),
        ops={kind: Spread.of(times) for kind, times in ops.items()},
        sublayers=sublayers,
        failed=tuple(path for path in paths if path in failed),
    )


def _steps(source: Source, executions: Sequence[Execution], sound: set[int]) -> Iterator[Step]:
    """Yield prefill and decode where all of their steps ran as a whole."""
    steps: dict[str, list[int]] = {}
    for index, path in enumerate(source.sublayers):
        steps.setdefault(place_of(path).step_path, []).append(index)
    names = {step: {short_name(list(source.sublayers)[i]) for i in steps[step]} for step in steps}
    every = {sublayer.name for sublayer in decoder(source.config)}
    decode = source.golden.decode_steps
    for kind in ("prefill", "decode"):
        chosen = [step for step in steps if (step in decode) == (kind == "decode")]
        indices = [index for step in chosen for index in steps[step]]
        whole = all(names[step] == every for step in chosen)
        if not chosen or not whole or not sound >= set(indices):
            continue
        tokens = sum(_tokens(source.golden, step) for step in chosen)
        times = [float(sum(e.outcomes[i].ns for i in indices)) for e in executions]
        yield Step(kind, tokens, Spread.of(times))


def _tokens(golden: GoldenFile, step: str) -> int:
    """The tokens of a step that are no padding."""
    batch, token = golden.info(f"{step}/position_ids").shape
    if f"{step}/attention_mask" not in golden.tensors:
        return int(batch * token)
    return int(golden.verify(f"{step}/attention_mask")[:, -token:].sum())
