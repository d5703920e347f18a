"""Blame for a traced run: culprits by themselves, and bugs that reproduce them from the inputs that
the engine itself gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from numpy.typing import NDArray

from goldenctl.diff.illustrate import illustrate
from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import Policy
from goldenctl.errors import GoldenctlError, MissingError, require_torch
from goldenctl.folders import scratch
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.inject import Injection
from goldenctl.places import short_name
from goldenctl.records.findings import Culprit, Findings
from goldenctl.records.report import Report, TensorResult
from goldenctl.records.units import plural
from goldenctl.replay.backend import open_backend
from goldenctl.replay.bind import choose_sublayers
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.studies.blame import culprit_of

if TYPE_CHECKING:
    from goldenctl.studies.diagnose import Diagnosis

MOST_DIAGNOSED = 8
Notify = Callable[[str], None]


class Given:
    """What an engine gave its ops: a run's tensors where a golden's would be.

    Tables, positions and masks are the golden's. ``expected`` are outputs that take the place of
    the engine's own: what an op should have made of its inputs.
    """

    def __init__(
        self, golden: GoldenFile, run: GoldenFile, expected: Mapping[str, NDArray[Any]]
    ) -> None:
        self._golden, self._run, self._expected = golden, run, expected
        self.config = golden.config
        inputs = {n: i for n, i in golden.tensors.items() if i.role in ("constant", "input")}
        self.tensors: dict[str, TensorInfo] = {**inputs, **run.tensors}
        self.aliases = {**golden.aliases, **run.aliases}

    def info(self, name: str) -> TensorInfo:
        return self._side(name).info(name)

    def map(self, name: str) -> NDArray[Any]:
        found = self._expected.get(name)
        return self._side(name).map(name) if found is None else found

    def verify(self, name: str) -> NDArray[Any]:
        return self._side(name).verify(name)

    def _side(self, name: str) -> GoldenFile:
        own = self.aliases.get(name, name)
        return self._run if own in self._run.tensors else self._golden


def blame_run(
    golden: GoldenFile, run: GoldenFile, checkpoint: Path, *, policy: Policy, notify: Notify
) -> Report:
    """Judge a traced run and explain its culprits; the report is diff's, with findings.

    A culprit is an op whose structure is proved wrong, or that is wrong by itself.
    """
    report = compare(golden, run, policy)
    found = {(f.place, f.op): f.text for f in report.structure}
    culprits = [t for t in report.tensors if t.part == "culprit" or (not t.ok and _key(t) in found)]
    unproved = [t for t in culprits if _key(t) not in found and t.metrics is not None]
    diagnoses, note = _diagnosed(golden, run, checkpoint, unproved, notify)
    blamed = tuple(_culprit(t, found.get(_key(t)), diagnoses.get(t.name)) for t in culprits)
    injections = _injections(blamed)
    if injections:
        notify("replaying in PyTorch with these bugs")
        shown = _reproduced(golden, run, checkpoint, injections, report, policy)
        note = "; ".join(filter(None, (shown, note)))
    findings = Findings(culprits=blamed, note=note)
    return illustrate(replace(report, command="blame", findings=findings), golden, run)


def _injections(culprits: Sequence[Culprit]) -> tuple[Injection, ...]:
    """Return the bugs that were named, each at its op; the first where several are as good."""
    found = (
        Injection(FAULTS[fault], f"{short_name(culprit.sublayer)}.{culprit.tap}")
        for culprit in culprits
        for cause in culprit.named[:1]
        for fault in cause.faults
    )
    return tuple(dict.fromkeys(found))


def _reproduced(
    golden: GoldenFile,
    run: GoldenFile,
    checkpoint: Path,
    injections: tuple[Injection, ...],
    report: Report,
    policy: Policy,
) -> str:
    """Say how far a chain in PyTorch with these bugs in it computes what the engine did."""
    options = Options(mode="chain", dtype=run.recipe["dtype"], faults=injections)
    with scratch() as folder:
        path = Path(folder, "run.h5")
        try:
            replay(golden, checkpoint, path, backend=open_backend("torch"), options=options)
            again = compare(open_golden(path), run, policy)
        except GoldenctlError as error:
            return f"these bugs could not be replayed: {error}"
    # By the numbers alone: an op with a bug stays wrong by itself.
    wrong, before = (sum(not t.share <= 1 for t in each.compared) for each in (again, report))
    said = f"a chain in PyTorch with {plural(len(injections), 'bug')} put in"
    return f"{said} differs from the engine in {plural(wrong, 'tensor')}, without in {before}"


def _key(tensor: TensorResult) -> tuple[str, str]:
    return short_name(tensor.sublayer), tensor.tap


def _diagnosed(
    golden: GoldenFile,
    run: GoldenFile,
    folder: Path,
    culprits: list[TensorResult],
    notify: Notify,
) -> tuple[dict[str, Diagnosis], str]:
    if not culprits:
        return {}, ""
    try:
        require_torch("diagnosis")
    except MissingError as error:
        return {}, str(error)
    from goldenctl.reference.patch import Emulator
    from goldenctl.studies.diagnose import Diagnoser

    graph = choose_sublayers(golden, golden.config, None, fused=False)
    checkpoint = Checkpoint.open(folder)
    found = {}
    for culprit in culprits[:MOST_DIAGNOSED]:
        notify(f"diagnosing {culprit.name}")
        sublayer, actual = graph[culprit.sublayer], run.map(culprit.name)
        given: Any = Given(golden, run, {})
        emulator = Emulator(given, checkpoint, culprit.actual_dtype)
        op = sublayer.producer(culprit.tap)
        right = emulator.output(culprit.sublayer, sublayer, op).reshape(actual.shape)
        given = Given(golden, run, {culprit.name: right})
        diagnoser = Diagnoser(given, emulator)
        found[culprit.name] = diagnoser.diagnose(culprit.sublayer, sublayer, culprit.tap, actual)
    left = len(culprits) - len(found)
    said = f"the first {len(found)} culprits were diagnosed, {left} more were not"
    return found, said if left else ""


def _culprit(tensor: TensorResult, proof: str | None, diagnosis: Diagnosis | None) -> Culprit:
    found = culprit_of(tensor, diagnosis)
    return found if proof is None else replace(found, message=f"proved: {proof}")
