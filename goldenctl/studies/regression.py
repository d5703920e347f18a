"""The check of one golden set: integrity, then recording again and replay, as asked.

With its file a golden is judged by its bytes. With the manifest alone the sketches judge the
recording that is made again, and the replay is judged by that recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from goldenctl.diff.illustrate import illustrate
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import Policy
from goldenctl.digests import algorithm_of
from goldenctl.errors import require_torch
from goldenctl.folders import scratch
from goldenctl.golden.calls import is_of_modules
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.untrusted_recipe import RecipeObject
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.source import checkpoint_folder
from goldenctl.records.report import Report
from goldenctl.replay.backend import check_dtype, open_backend
from goldenctl.replay.modules import prepare
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.sets.against_manifest import compare_with_manifest
from goldenctl.sets.integrity import check_files, check_manifest
from goldenctl.sets.manifest import Manifest
from goldenctl.sets.names import GoldenSet
from goldenctl.studies.regression_step import (
    INTEGRITY,
    PASSED,
    RECORD,
    REPLAY,
    Results,
    Step,
    caught,
    of_report,
)
from goldenctl.studies.regression_trace import PREFIX, trace_engine

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a check. ``against`` is ``golden``, ``manifest``, or empty: the golden
    where it is here, else the manifest. ``record`` also records again where the golden is here;
    ``policy`` None is the manifest's own; ``strict`` fails what is only noted
    otherwise; ``keep`` is a folder for what is written; ``pictures`` says whether figures will be
    drawn."""

    integrity_only: bool = False
    against: str = ""
    record: bool = False
    replay: bool = True
    backend: str = "infinicore"
    options: Options = field(default_factory=Options)
    model_path: str = ""
    module: str | None = None
    infini_root: Path | None = None
    policy: Policy | None = None
    strict: bool = False
    keep: Path | None = None
    pictures: bool = False
    progress: Progress = lambda *_: None
    notify: Callable[[str], None] = lambda _: None


def check_set(golden_set: GoldenSet, wanted: Wanted) -> Iterator[Step]:
    """Yield what each step found out; an error ends its step and those that need it."""
    results: Results = []
    found: tuple[Manifest, GoldenFile | None] | None = None
    with caught(golden_set.name, INTEGRITY, results):
        found = _integrity(golden_set, wanted, results)
    yield from results
    if found is None or wanted.integrity_only:
        return
    with scratch() as folder:
        if wanted.keep is not None:
            folder = wanted.keep / golden_set.name
            folder.mkdir(parents=True, exist_ok=True)
        yield from _Check(golden_set, wanted, *found, folder).steps()


def _integrity(
    golden_set: GoldenSet, wanted: Wanted, results: Results
) -> tuple[Manifest, GoldenFile | None]:
    manifest = check_manifest(golden_set)
    if wanted.against == "golden":
        golden_set.file(manifest.version)  # says what brings it when it is not here
    golden = check_files(golden_set, manifest)
    here = [f"v{e.version}" for e in manifest.versions if golden_set.path(e.version).exists()]
    said = f"{', '.join(here)} here" if here else f"only the manifest of v{manifest.version}"
    count = f"{len(manifest.tensors)} digests" if golden is not None else ""
    results.append(Step(golden_set.name, INTEGRITY, PASSED, count, said=said))
    return manifest, golden if wanted.against != "manifest" else None


class _Check:
    """What follows integrity: ``golden`` is None where the manifest alone has to judge."""

    def __init__(
        self,
        golden_set: GoldenSet,
        wanted: Wanted,
        manifest: Manifest,
        golden: GoldenFile | None,
        folder: Path,
    ) -> None:
        self._set = golden_set
        self._wanted = wanted
        self._manifest = manifest
        self._golden = golden
        self._folder = folder
        self._policy = wanted.policy or manifest.tolerance

    def steps(self) -> Iterator[Step]:
        name, results = self._set.name, Results()
        source = self._golden
        if source is None or self._wanted.record:
            again = None
            with caught(name, RECORD, results):
                again = self._record()
                results.append(of_report(name, RECORD, self._judge_recording(again)))
            source = source or again
            yield from results
        if source is None or not self._wanted.replay:
            return
        results = []
        with caught(name, REPLAY, results):
            results += self._replayed(source)
        yield from results

    def _record(self) -> GoldenFile:
        require_torch(f"{self._set.name}: recording it again")
        if self._manifest.recipe.modules is not None:
            return self._record_modules()
        from goldenctl.reference.again import recording_of
        from goldenctl.reference.record import record

        source = self._wanted.model_path
        where = str(self._set.manifest_path)
        recording = recording_of(self._manifest.recipe, where, source=source)
        path = self._folder / "golden.h5"
        path.unlink(missing_ok=True)
        record(recording, path, self._wanted.progress)
        return open_golden(path, kind="golden")

    def _record_modules(self) -> GoldenFile:
        from goldenctl.reference.modules.again import recording_of_modules
        from goldenctl.reference.modules.record import record_modules

        recording = recording_of_modules(
            self._manifest.recipe,
            str(self._set.manifest_path),
            module=self._wanted.module,
            folder=lambda path: checkpoint_folder(self._wanted.model_path or path),
        )
        path = self._folder / "golden.h5"
        path.unlink(missing_ok=True)
        record_modules(recording, path, self._wanted.progress)
        return open_golden(path, kind="golden")

    def _judge_recording(self, again: GoldenFile) -> Report:
        """Another machine's recording is a chain from the same token ids."""
        if self._golden is not None:
            strict = self._wanted.strict
            return compare(self._golden, again, self._policy, mode="chain", strict=strict)
        return self._by_sketch(again, "chain")

    def _replayed(self, source: GoldenFile) -> Iterator[Step]:
        traced = self._wanted.backend.startswith(PREFIX)
        said, run = self._trace(source) if traced else self._replay(source)
        report = compare(source, run, self._policy, strict=self._wanted.strict)
        if self._wanted.pictures:
            report = illustrate(report, source, run)
        yield of_report(self._set.name, REPLAY, report, said=said)
        expected = self._manifest.current.content_digest
        if not traced and source.content_in(algorithm_of(expected)) != expected:
            # The run started from other bits than the manifest's golden has.
            origin = {**run.recipe["golden"], "content_digest": expected}
            run = replace(
                run, recipe=RecipeObject({**run.recipe, "golden": origin}, run.recipe.where)
            )
            report = self._by_sketch(run, "chain")
            yield of_report(self._set.name, REPLAY, report, said=f"{said}, by manifest")

    def _trace(self, source: GoldenFile) -> tuple[str, GoldenFile]:
        wanted, path = self._wanted, self._folder / "run.h5"
        model = wanted.model_path or source.recipe["model"]["path"]
        with Checkpoint.open(checkpoint_folder(model, notify=wanted.notify)) as checkpoint:
            trace_engine(
                source,
                checkpoint,
                path,
                spec=wanted.backend,
                infini_root=wanted.infini_root,
                timeout_s=wanted.options.timeout_s,
                notify=wanted.notify,
            )
        run = open_golden(path, kind="run")
        return f"a traced engine, {run.recipe['device']}", run

    def _replay_modules(self, source: GoldenFile) -> tuple[str, GoldenFile]:
        """In PyTorch, whatever the backend of the other sets is: no other replays modules."""
        from goldenctl.reference.modules.replay import replay_modules

        wanted, path = self._wanted, self._folder / "run.h5"
        model = wanted.model_path or source.recipe["model"]["path"]
        how, subject = prepare(
            source,
            wanted.options,
            module=wanted.module,
            folder=lambda: checkpoint_folder(model, notify=wanted.notify),
        )
        replay_modules(source, subject, path, how, wanted.progress)
        run = open_golden(path, kind="run")
        return f"torch {wanted.options.device}, {run.recipe['mode']}", run

    def _replay(self, source: GoldenFile) -> tuple[str, GoldenFile]:
        wanted = self._wanted
        if is_of_modules(source.recipe):
            return self._replay_modules(source)
        backend = open_backend(wanted.backend, infini_root=wanted.infini_root, notify=wanted.notify)
        dtype = wanted.options.dtype or source.recipe["dtype"]
        check_dtype(backend, dtype)
        model = wanted.model_path or source.recipe["model"]["path"]
        path = self._folder / "run.h5"
        replay(
            source,
            checkpoint_folder(model, notify=wanted.notify),
            path,
            backend=backend,
            options=wanted.options,
            progress=wanted.progress,
        )
        run = open_golden(path, kind="run")
        return f"{backend.name} {wanted.options.device}, {run.recipe['mode']}", run

    def _by_sketch(self, file: GoldenFile, mode: str) -> Report:
        where = self._set.manifest_path
        return compare_with_manifest(self._manifest, where, file, self._policy, mode=mode)
