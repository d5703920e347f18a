"""A replay, from golden to run file: choose, bind, execute, seal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError, require_torch
from goldenctl.folders import scratch
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.journal import Journal
from goldenctl.golden.modes import BOTH
from goldenctl.golden.run_layout import run_layout
from goldenctl.golden.schema import SublayerInfo
from goldenctl.golden.times import with_groups
from goldenctl.golden.writer import GoldenWriter
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.graph import FUSED_TAPS, Op, Sublayer
from goldenctl.ops.inject import inject
from goldenctl.ops.plan import File, Plan, write_plan
from goldenctl.places import plain_tap, short_name
from goldenctl.records.determinism import Determinism
from goldenctl.replay.backend import Backend, check_ops, parse_device
from goldenctl.replay.bind import Binder, Patches, Source, choose_sublayers, without_stores
from goldenctl.replay.launch import Launcher
from goldenctl.replay.options import Options
from goldenctl.replay.simulated import describe, simulate
from goldenctl.replay.supervise import Execution, Outcome
from goldenctl.shell import quoted

Progress = Callable[[int, int, str], None]
PATCHES = "goldenctl.patches"


@dataclass(frozen=True)
class Summary:
    """What a replay did: how many sublayers ran, were finished before, and failed, the
    commands that run failed and wanted sublayers alone, and what passes in other orders showed."""

    sublayers: int
    failed: list[str] = field(default_factory=list)
    debug_commands: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    determinism: Determinism | None = None


def replay(
    golden: GoldenFile,
    checkpoint_path: Path,
    run_path: Path,
    *,
    backend: Backend,
    options: Options,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Replay a golden on a backend and write the run file.

    Raises DamagedError when the checkpoint is not the one recorded, MissingError or
    UsageError as the backend does. Sublayers that fail are in the run file, marked so.
    """
    options = options.for_golden(golden)
    source = open_source(golden, checkpoint_path, options)
    dtype = options.dtype or golden.recipe["dtype"]
    layout = run_layout(source.golden, source.sublayers, dtype, options.mode)
    _refuse_unknown(frozenset(options.debug), layout.groups)
    recipe = _recipe(source, backend.description, options, dtype)
    with (
        scratch() as folder,
        _journal(run_path, recipe, options) as journal,
        GoldenWriter(
            run_path,
            kind="run",
            recipe=recipe,
            tensors=layout.tensors,
            links=layout.links,
            groups=layout.groups,
            journal=journal,
        ) as writer,
    ):
        resumed = len(journal.finished) if journal is not None else 0
        plan = _plan(source, writer, folder, options)
        check_ops(backend, plan)
        launcher = Launcher(backend, plan, writer, options.timeout_s, progress)
        execution, digests, determinism = _execute(launcher, options, journal)
        debugged = _debugged(execution, layout.groups, frozenset(options.debug))
        commands = _name_commands(execution, debugged, backend, run_path)
        writer.seal(
            recipe=_completed(recipe, layout.groups, execution, determinism),
            digests=digests,
            times_ns=_times(layout.groups, execution.outcomes),
            sublayers=[
                _sublayer_info(name, outcome)
                for name, outcome in zip(layout.groups, execution.outcomes, strict=True)
            ],
        )
        _write_debug_plan(plan, debugged, run_path)
    failed = [g for g, o in zip(layout.groups, execution.outcomes, strict=True) if o.failure]
    named = [layout.groups[index] for index in debugged]
    debug = dict(zip(named, commands, strict=True))
    return Summary(len(layout.groups), failed, debug, resumed, determinism)


def _execute(
    launcher: Launcher, options: Options, journal: Journal | None
) -> tuple[Execution, dict[str, str], Determinism | None]:
    """Execute the plan as the options say; return also the digests that are known, and what
    passes in other orders showed."""
    if options.shuffle:
        execution, determinism = launcher.shuffled(
            rounds=options.repeat, seed=options.seed or 0, isolated_ops=options.mode in ("op", BOTH)
        )
        return execution, {}, determinism
    execution, digests = launcher.once(
        workers=options.workers, memory_bytes=options.memory_bytes, journal=journal
    )
    return execution, digests, None


def _completed(
    recipe: dict[str, Any],
    groups: list[str],
    execution: Execution,
    determinism: Determinism | None,
) -> dict[str, Any]:
    """Return the recipe with what is known only after the replay."""
    told = {"program": execution.program, "quirks": execution.quirks}
    added: dict[str, Any] = {"backend": {**recipe["backend"], **told}}
    if spreads := _spreads(groups, execution.outcomes):
        added["iqr_ns"] = spreads
    if determinism is not None:
        added["determinism"] = msgspec.to_builtins(determinism)
    return {**recipe, **added}


def _journal(
    run_path: Path, recipe: Mapping[str, Any], options: Options
) -> AbstractContextManager[Journal | None]:
    return Journal(run_path, recipe) if options.resume else nullcontext()


def _plan(source: Source, writer: GoldenWriter, folder: Path, options: Options) -> Plan:
    dtype = options.dtype or source.golden.recipe["dtype"]
    binder = Binder(
        source,
        mode=options.mode,
        dtype=dtype,
        run_path=writer.temporary_path,
        offsets=writer.offsets,
        patches=_patches(source, dtype, folder),
        grafts=options.grafts,
    )
    sublayers = binder.sublayers()
    device, device_id = parse_device(options.device)
    return Plan(
        device=device,
        device_id=device_id,
        dtype=dtype,
        files=binder.files,
        sublayers=sublayers,
        repeat=options.repeat,
        stop_on_failure=options.mode == "chain",
    )


def replay_simulated(
    golden: GoldenFile,
    run_path: Path,
    *,
    options: Options,
) -> Summary:
    """Write a run of the simulated backend; its noise is by default the dtype's epsilon."""
    options = options.for_golden(golden)
    config = golden.config
    chosen = choose_sublayers(golden, config, options.layers, fused=False)
    dtype = options.dtype or golden.recipe["dtype"]
    noise = DTYPES[dtype].eps if options.noise is None else options.noise
    seed = options.seed or 0
    source = Source(golden, config, None, chosen)
    layout = run_layout(source.golden, source.sublayers, dtype, options.mode)
    with GoldenWriter(
        run_path,
        kind="run",
        recipe=_recipe(source, describe(noise, seed), options, dtype),
        tensors=layout.tensors,
        links=layout.links,
        groups=layout.groups,
    ) as writer:
        simulate(golden, writer, noise=noise, seed=seed)
        writer.seal(sublayers=[SublayerInfo(name, 0) for name in layout.groups], simulated=True)
    return Summary(len(layout.groups))


def open_source(golden: GoldenFile, checkpoint_path: Path, options: Options) -> Source:
    """Open the checkpoint and choose what is replayed of a golden.

    Raises DamagedError when the checkpoint is not the one recorded.
    """
    checkpoint = Checkpoint.open(checkpoint_path)
    expected = golden.recipe["model"]["fingerprint"]
    actual = checkpoint.fingerprint()
    if actual != expected:
        msg = (
            f"{checkpoint_path}: not the checkpoint that {golden.path} was recorded from: "
            f"expected fingerprint {expected}, got {actual}"
        )
        raise DamagedError(
            msg,
            hint="pass the recorded one with --model-path",
        )
    config = golden.config
    fused = options.attention == "sdpa"
    chosen = choose_sublayers(golden, config, options.layers, fused=fused)
    faulty = inject(chosen, options.faults, config)
    kept = {path: s for path, s in faulty.items() if options.only is None or path in options.only}
    return Source(golden, config, checkpoint, kept)


def _patches(source: Source, dtype: str, folder: Path) -> Patches:
    def emulate(path: str, sublayer: Sublayer, op: Op) -> np.ndarray:
        require_torch(f"fault {op.attrs['fault']}, which is emulated")
        from goldenctl.reference.patch import Emulator

        assert source.checkpoint is not None
        emulator = Emulator(source.golden, source.checkpoint, dtype)
        return emulator.output(path, sublayer, op)

    return Patches(folder / PATCHES, emulate)


def _recipe(
    source: Source, backend: Mapping[str, Any], options: Options, dtype: str
) -> dict[str, Any]:
    golden = source.golden
    return {
        "golden": {"path": str(golden.path), "content_digest": golden.content_digest},
        "model": golden.recipe["model"],
        "cases": golden.recipe["cases"],
        "backend": dict(backend),
        "device": options.device,
        "mode": options.mode,
        "dtype": dtype,
        "attention": options.attention,
        "repeat": options.repeat,
        "sublayers": list(source.sublayers),
        "not_computed": list(FUSED_TAPS) if options.attention == "sdpa" else [],
        "faults": [str(injection) for injection in options.faults],
        "grafts": sorted(options.grafts),
    }


def _refuse_unknown(wanted: frozenset[str], groups: list[str]) -> None:
    """Raise UsageError when a sublayer to be debugged is not replayed."""
    known = {short_name(group) for group in groups}
    unknown = sorted(wanted - known)
    if unknown:
        msg = f"--debug {unknown[0]}: no sublayer of this replay has that name"
        raise UsageError(msg, hint="such as layers.02.attention, embedding or lm_head")


def _debugged(execution: Execution, groups: list[str], wanted: frozenset[str]) -> list[int]:
    """Sublayers that failed when they were tried, and those that are wanted."""
    return [
        index
        for index, (group, outcome) in enumerate(zip(groups, execution.outcomes, strict=True))
        if (outcome.failure and outcome.failure["reason"] != "not_run")
        or short_name(group) in wanted
    ]


def _name_commands(
    execution: Execution, debugged: list[int], backend: Backend, run_path: Path
) -> list[str]:
    """Return the command that runs each of these sublayers alone, from their common plan; put
    it into the failures."""
    path = str(_debug_path(run_path, "json").resolve())
    commands = []
    for number, index in enumerate(debugged):
        words = [*backend.command, path, "--only", str(number)]
        commands.append(quoted(words))
        failure = execution.outcomes[index].failure
        if failure is not None:
            failure["command"] = words
    return commands


def _write_debug_plan(plan: Plan, debugged: list[int], run_path: Path) -> None:
    """Write a plan of these sublayers alone, over the sealed run; remove an older one.

    The tables and outputs of injected faults are kept beside it.
    """
    plan_path, patches_path = _debug_path(run_path, "json"), _debug_path(run_path, "patches")
    for path in (plan_path, patches_path):
        path.unlink(missing_ok=True)
    if not debugged:
        return
    files = []
    for file in plan.files:
        path = Path(file.path)
        if file.write:
            path = run_path.resolve()
        elif path.name == PATCHES:
            path = Path(shutil.copyfile(path, patches_path)).resolve()
        files.append(File(str(path), path.stat().st_size, write=False))
    sublayers = without_stores(plan.sublayers[index] for index in debugged)
    debug = Plan(plan.device, plan.device_id, plan.dtype, tuple(files), sublayers)
    write_plan(debug, plan_path)


def _debug_path(run_path: Path, suffix: str) -> Path:
    return run_path.with_name(f"{run_path.name}.debug.{suffix}")


def _times(groups: list[str], outcomes: list[Outcome]) -> dict[str, int]:
    return {
        f"{group}/{tap}": ns
        for group, outcome in zip(groups, outcomes, strict=True)
        for tap, ns in outcome.op_ns.items()
        if tap == plain_tap(tap)
    }


def _spreads(groups: list[str], outcomes: list[Outcome]) -> dict[str, int]:
    return with_groups(
        {
            f"{group}/{tap}": ns
            for group, outcome in zip(groups, outcomes, strict=True)
            for tap, ns in outcome.iqr_ns.items()
            if tap == plain_tap(tap)
        }
    )


def _sublayer_info(name: str, outcome: Outcome) -> SublayerInfo:
    status = "failed" if outcome.failure else "ok"
    # What the golden's time is of: each op once.
    twice_ns = sum(ns for tap, ns in outcome.op_ns.items() if tap != plain_tap(tap))
    return SublayerInfo(name, max(0, outcome.ns - twice_ns), status, outcome.failure)
