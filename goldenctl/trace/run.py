"""A run of mode ``trace``: what an engine computed by itself, in the golden's places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import SublayerInfo, TensorInfo, TensorSpec
from goldenctl.golden.steps import Step
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import CACHE_LINKS
from goldenctl.places import place, place_of
from goldenctl.records.structure import MODE, Coverage, Local, Trace, merged
from goldenctl.trace.calls import Calls
from goldenctl.trace.canvas import Picture
from goldenctl.trace.names import name_calls
from goldenctl.trace.opmap import OpMap, listing
from goldenctl.trace.passes import Pass
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place
from goldenctl.trace.weights import Book

Progress = Callable[[int, int, str], None]
Judge = Callable[[Tracing, Checkpoint, Sequence[str]], tuple[dict[str, Local], str]]
BACKEND = "trace"


@dataclass(frozen=True)
class TraceOptions:
    """How calls become a run. ``judge`` judges each op by its own inputs, or says why not,
    ``book`` are the checkpoint's rows where they are digested, ``ops`` says what an engine's own
    operators are."""

    judge: Judge
    book: Book | None = None
    ops: OpMap = field(default_factory=OpMap)
    progress: Progress = lambda *_: None


@dataclass(frozen=True)
class TraceSummary:
    """What a run of mode ``trace`` says of itself; ``listing`` is a map of operators to start
    from."""

    trace: Trace
    steps: tuple[str, ...]
    listing: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines to print: the coverage, what is wrong with the structure, what was not judged."""
        found = merged(self.trace.findings, len(self.steps))
        wrong = [" ".join([f"✗ {each}", *(f"({text})" for text in each.details)]) for each in found]
        return (*self.trace.lines(), *wrong)


@dataclass(frozen=True)
class _Part:
    """A golden's tensor as the engine computed it: [batch, token, ...] of one step."""

    info: TensorInfo
    picture: Picture
    data: NDArray[Any]
    rows: NDArray[np.bool_]


def write_run(
    golden: GoldenFile,
    checkpoint: Path,
    logs: Sequence[Calls],
    run_path: Path,
    *,
    options: TraceOptions,
) -> TraceSummary:
    """Name the calls of a program's processes and write what they computed as a run of ``golden``.

    Raises DamagedError when the checkpoint is not the one recorded, UsageError when the calls
    compute none of the golden's steps. Nothing is then written.
    """
    weights = _checkpoint(golden, checkpoint)
    logs = [options.ops.applied(calls) for calls in logs]
    book = options.book or Book.of(weights)
    tracing, passes = name_calls(golden, book, logs, ops=options.ops, progress=options.progress)
    parts = list(_parts(golden, tracing, passes))
    steps = _steps_run(golden, passes)
    trace = _trace(golden, tracing, passes, parts, steps)
    count = sum(1 for calls in logs for _ in calls.calls)
    if trace.coverage is not None:
        trace = replace(trace, coverage=replace(trace.coverage, calls=count))
    if not parts and not trace.findings:
        _refuse(logs[0], count, passes)
    local, note = options.judge(tracing, weights, steps)
    trace = replace(trace, local=local, local_note=note)
    spared = [i.name for i in _expected(golden, steps) if _is_spared(tracing, passes, i)]
    not_computed = sorted(set(spared) - {part.info.name for part in parts})
    _write(golden, logs[0], run_path, parts, (trace, steps, not_computed))
    names = tuple(path.replace("cases/", "").replace("/steps", "") for path in steps)
    return TraceSummary(trace, names, _listing(golden, tracing, (logs, parts, steps)))


def _listing(
    golden: GoldenFile, tracing: Tracing, found: tuple[Sequence[Calls], list[_Part], list[str]]
) -> tuple[str, ...]:
    logs, parts, steps = found
    there = {part.info.name for part in parts}
    absent = [
        f"{info.sublayer}.{info.tap}"
        for info in _expected(golden, steps)
        if info.name not in there
        and Place(info.case, info.sublayer, info.tap) not in tracing.fused
        and info.tap not in CACHE_LINKS
    ]
    strangers = tracing.strangers
    return tuple(listing(tracing.unexplained, strangers, list(dict.fromkeys(absent)), logs))


def _checkpoint(golden: GoldenFile, folder: Path) -> Checkpoint:
    weights = Checkpoint.open(folder)
    expected = golden.recipe["model"]["fingerprint"]
    if (actual := weights.fingerprint()) != expected:
        message = (
            f"{folder}: not the checkpoint that {golden.path} was recorded from: "
            f"expected fingerprint {expected}, got {actual}"
        )
        raise DamagedError(message, hint="pass the recorded one with --model-path")
    return weights


def _refuse(calls: Calls, count: int, passes: list[Pass]) -> None:
    message = f"{calls.path}: none of its {count} calls is an op of the golden"
    hint = "no call reads an embedding of the checkpoint: is it the model that was recorded?"
    if passes:
        hint = "the engine was given other tokens than the golden's cases"
    raise UsageError(message, hint=hint)


def _steps_run(golden: GoldenFile, passes: list[Pass]) -> list[str]:
    """Return the paths of the golden's steps all of whose tokens the engine took."""
    taken: dict[str, NDArray[np.bool_]] = {}
    found: dict[str, Step] = {}
    for each in passes:
        if each.tokens_of is None or each.wrong:
            continue
        tokens = each.tokens_of
        mask = taken.setdefault(tokens.case.name, ~tokens.visible)
        mask[each.rows, each.tokens] = True
        for step in tokens.steps:
            if mask[:, step.start : step.stop].all():
                found[step.path] = step
    have = {place_of(name).step_path for name in golden.sublayers}
    return sorted(path for path in found if path in have)


def _parts(golden: GoldenFile, tracing: Tracing, passes: list[Pass]) -> Iterator[_Part]:
    """Yield the golden's tensors of the steps that were run, as far as they were computed."""
    steps = set(_steps_run(golden, passes))
    for info in golden.tensors.values():
        path = info.place.step_path
        if info.role in ("tap", "output") and path in steps:
            place = Place(info.case, info.sublayer, CACHE_LINKS.get(info.tap, info.tap))
            picture = tracing.canvas.pictures.get(place)
            if picture is not None and (part := _part(tracing, info, picture)) is not None:
                yield part


def _part(tracing: Tracing, info: TensorInfo, picture: Picture) -> _Part | None:
    step = next(s for s in tracing.cases[info.case].steps if s.number == int(info.step))
    index = step_index(step, info.dims)
    data, written = np.array(picture.data[index]), np.array(picture.written[index])
    if info.op == "causal_softmax":  # what comes later has probability 0, computed or not
        token, key = np.arange(step.start, step.stop)[:, None], np.arange(step.stop)
        later = (key > token) & ~written
        data[later], written = 0, written | later
    rows = np.asarray(written.all(-1))
    if data.shape != info.shape or not written.any():
        return None
    data[~rows] = np.nan
    part = _Part(info, picture, data, rows)
    if not _tokens_of(part):
        tracing.in_part.add(info.name)
        return None
    return part


def step_index(step: Step, dims: tuple[str, ...]) -> tuple[slice, ...]:
    """Return which elements of a value of all tokens are a step's."""
    spans = {
        "token": slice(step.start, step.stop),
        "last_token": slice(step.stop - 1, step.stop),
        "key_token": slice(0, step.stop),
    }
    return tuple(spans.get(dim, slice(None)) for dim in dims)


def _trace(
    golden: GoldenFile, tracing: Tracing, passes: list[Pass], parts: list[_Part], steps: list[str]
) -> Trace:
    expected = _expected(golden, steps)
    found = {part.info.name for part in parts}
    lacking = [info for info in expected if info.name not in found]
    fused = sum(_is_spared(tracing, passes, info) for info in lacking)
    aside = sum(each.tokens_of is None for each in passes)
    notes = list(tracing.notes)
    if tracing.in_part:
        said = f"{len(tracing.in_part)} tensors are computed for some heads or rows alone"
        notes.append(f"{said}, such as one rank's: they are not judged")
    if aside:
        notes.append(f"{aside} other forward passes, such as a warm-up, are left out")
    return Trace(
        program=tuple(tracing.calls.start.program),
        findings=tracing.findings(),
        notes=tuple(notes),
        coverage=Coverage(
            expected=len(expected),
            found=len(found),
            fused=fused,
            absent=len(lacking) - fused,
            aside=aside,
            unexplained=dict(tracing.unexplained),
        ),
        rows={part.info.name: _tokens_of(part) for part in parts if not part.rows.all()},
    )


def _expected(golden: GoldenFile, steps: list[str]) -> list[TensorInfo]:
    return [
        info
        for info in golden.tensors.values()
        if info.role in ("tap", "output") and info.place.step_path in steps
    ]


def _is_spared(tracing: Tracing, passes: list[Pass], info: TensorInfo) -> bool:
    """Whether a right engine need not compute a tensor: a fused op does not yield it, or it is of
    a token that is followed by others in its pass, whose logits nobody asks for."""
    if Place(info.case, info.sublayer, info.tap) in tracing.fused:
        return True
    if info.sublayer not in ("final_norm", "lm_head"):
        return False
    step = next(s for s in tracing.cases[info.case].steps if s.number == int(info.step))
    ends = {int(p.tokens.max()) for p in passes if p.tokens_of is tracing.cases[info.case]}
    return step.stop - 1 not in ends


def _tokens_of(part: _Part) -> tuple[int, ...]:
    """Return the tokens of a step that were computed in every batch row and head."""
    dims = part.info.dims[:-1]
    axis = dims.index("token") if "token" in dims else dims.index("last_token")
    others = tuple(n for n in range(len(dims)) if n != axis)
    return tuple(int(t) for t in np.flatnonzero(part.rows.all(axis=others)))


def _write(
    golden: GoldenFile,
    calls: Calls,
    run_path: Path,
    parts: list[_Part],
    told: tuple[Trace, list[str], list[str]],
) -> None:
    trace, steps, not_computed = told
    specs = [
        TensorSpec(
            p.info.name, p.data.dtype.name, p.info.shape, p.info.dims, p.info.role, p.info.op
        )
        for p in parts
    ]
    groups = [name for name in golden.sublayers if place_of(name).step_path in steps]
    names = {spec.name for spec in specs}
    links = {
        link: target
        for link, target in golden.aliases.items()
        if target in names and place(link).group in groups
    }
    recipe = _recipe(golden, calls, trace, specs, groups)
    recipe["not_computed"] = not_computed
    with GoldenWriter(
        run_path, kind="run", recipe=recipe, tensors=specs, links=links, groups=groups
    ) as writer:
        for spec, part in zip(specs, parts, strict=True):
            writer.write(spec.name, np.ascontiguousarray(part.data).reshape(-1).view("u1").data)
        times = {
            part.info.name: part.picture.time_ns[f"{part.info.case}/{part.info.step}"]
            for part in parts
        }
        totals: Counter[str] = Counter()
        for name, time_ns in times.items():
            totals[place(name).group] += time_ns
        writer.seal(times_ns=times, sublayers=[SublayerInfo(g, totals[g]) for g in groups])


def _recipe(
    golden: GoldenFile, calls: Calls, trace: Trace, specs: list[TensorSpec], groups: list[str]
) -> dict[str, Any]:
    dtypes = Counter(spec.dtype for spec in specs)
    most = dtypes.most_common(1)
    device = next((f"{c.device}:{c.device_id}" for c in calls.calls), "")
    return {
        "golden": {"path": str(golden.path), "content_digest": golden.content_digest},
        "model": golden.recipe["model"],
        "cases": golden.recipe["cases"],
        "backend": {
            "name": BACKEND,
            "program": list(calls.start.program),
            "infiniop": calls.start.infiniop,
            "infinirt": calls.start.infinirt,
        },
        "device": device.removesuffix(":0"),
        "mode": MODE,
        "dtype": most[0][0] if most else golden.recipe["dtype"],
        "attention": "sdpa" if trace.coverage and trace.coverage.fused else "eager",
        "repeat": 1,
        "sublayers": groups,
        "not_computed": [],
        "faults": [],
        "grafts": [],
        "trace": msgspec.to_builtins(trace),
    }
