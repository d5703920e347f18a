"""Attestations: what one machine found of a run, for another to judge again.

It holds no tensors but their sketches, which are judged again against the manifest. It proves
that its verdicts follow from its sketches, and that neither was changed afterwards by accident;
not that the run took place, nor who made it: for that, sign the file (docs/check.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from numpy.typing import NDArray

from goldenctl import __version__
from goldenctl.diff.by_sketch import SketchScorer
from goldenctl.diff.judge import compare
from goldenctl.diff.padding import padding_by_recipe, recipe_masks
from goldenctl.diff.scopes import budget_mode
from goldenctl.diff.sketches import sketch_values
from goldenctl.diff.traced import for_report, trace_of
from goldenctl.digests import BLAKE3, Digest, algorithm_of, modern, of_text, require_known
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError, why_no_file
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import FORMAT_VERSION, SublayerInfo, TensorInfo
from goldenctl.golden.sketch import Finite, Sketch
from goldenctl.golden.times import now_utc
from goldenctl.golden.untrusted_recipe import RecipeObject
from goldenctl.model.jsonfile import read_object
from goldenctl.places import plain_name
from goldenctl.records.report import NEUTRAL, PASSED, Report
from goldenctl.sets.against_manifest import compare_with_manifest, described, sketches
from goldenctl.sets.manifest import (
    Dtype,
    Manifest,
    Name,
    SetName,
    Shape,
    Version,
)

FORMAT = "goldenctl-attestation"
_STATES = "|".join(
    (PASSED, "failed|missing|extra|shape_mismatch|dtype_mismatch|crashed|unsure", *NEUTRAL)
)
Word = Annotated[str, Meta(max_length=64)]


class _Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What all records of an attestation have in common."""


class AttestedTensor(_Record, frozen=True, kw_only=True):
    """One tensor of the run, and how the machine that had it judged it."""

    name: Name
    dtype: Dtype
    shape: Shape
    digest: Digest
    state: Annotated[str, Meta(pattern=f"^({_STATES})$")]
    rule: Word = ""
    share: Finite | None = None
    sketch: Sketch | None = None


class AttestedGolden(_Record, frozen=True, kw_only=True):
    """The golden that was replayed, by name and by the manifest's own digest."""

    name: SetName
    version: Version
    content_digest: Digest
    manifest_digest: Digest


class AttestedRecipe(_Record, frozen=True, kw_only=True):
    """What of the run's recipe tells the engine apart, and how it was asked; ``trace`` is what a
    traced engine's calls prove. Tensors of which it computed a part have no sketch, and count as
    not computed."""

    backend: dict[str, Any] = {}
    device: Word = ""
    mode: Annotated[str, Meta(pattern=r"^(op\+sublayer|sublayer|op|chain|trace)$")] = "sublayer"
    dtype: Word = ""
    attention: Word = ""
    not_computed: tuple[Name, ...] = ()
    trace: dict[str, Any] | None = None
    faults: tuple[Annotated[str, Meta(max_length=256)], ...] = ()


class AttestedRun(_Record, frozen=True, kw_only=True):
    """What ran: the run's content, and what made it."""

    content_digest: Digest
    recipe: AttestedRecipe
    sublayers: tuple[Name, ...]
    failures: dict[str, dict[str, Any]] = {}
    simulated: bool = False


class Attestation(_Record, frozen=True, kw_only=True):
    """What one machine found; ``judged_by`` is ``tensors``, or ``sketches`` without the golden."""

    format: Annotated[str, Meta(pattern=f"^{FORMAT}$")] = FORMAT
    format_version: Annotated[int, Meta(ge=1, le=2)] = 2  # the first says sha256
    created_utc: Word
    tool_version: Word
    golden: AttestedGolden
    run: AttestedRun
    ok: bool
    policy: Word
    judged_by: Word
    tensors: tuple[AttestedTensor, ...]


def attest(
    manifest: Manifest, where: Path, golden: GoldenFile | None, run: GoldenFile
) -> tuple[Attestation, Report]:
    """Judge a run and return the attestation of it; ``golden`` None lets the sketches judge.

    Raises DamagedError when the run was replayed from another golden, or is damaged.
    """
    policy, mode = manifest.tolerance, str(run.recipe.get("mode", "sublayer"))
    if golden is not None:
        report = compare(golden, run, policy)
    else:
        report = compare_with_manifest(manifest, where, run, policy, mode=budget_mode(mode))
    attestation = Attestation(
        created_utc=now_utc(),
        tool_version=__version__,
        golden=_golden(manifest),
        run=_run(run),
        ok=report.ok,
        policy=report.policy,
        judged_by="tensors" if golden is not None else "sketches",
        tensors=tuple(_attested(run, report, recipe_masks(manifest.recipe))),
    )
    return attestation, report


def judge_again(attestation: Attestation, manifest: Manifest, where: Path, file: Path) -> Report:
    """Judge an attestation's sketches against the manifest.

    Raises DamagedError when it is of another manifest, or claims a verdict that its own
    sketches contradict.
    """
    _check_golden(attestation.golden, manifest, where, file)
    run = _as_run(attestation, manifest, file)
    policy, mode = manifest.tolerance, attestation.run.recipe.mode
    attested = {t.name: t.sketch for t in attestation.tensors if t.sketch is not None}

    def observe(info: TensorInfo) -> Sketch:
        if info.name not in attested:
            message = f"{file}: {info.name} has no sketch"
            raise DamagedError(message)
        return attested[info.name]

    scorer = SketchScorer(sketches(manifest.tensors), observe, policy, budget_mode(mode))
    report = compare(described(manifest, where), run, policy, mode=mode, scorer=scorer)
    _check_claims(attestation, report, file)
    return report


def dump(attestation: Attestation) -> bytes:
    """Return an attestation as it is written, its digest included."""
    said = msgspec.to_builtins(attestation)
    said["digest"] = digest_of(said)
    return (json.dumps(said, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def load(path: Path) -> Attestation:
    """Read an attestation; UsageError when there is none, DamagedError when it is not one or
    was changed after it was written."""
    if not path.is_file():
        message = f"{path}: {why_no_file(path)}"
        raise UsageError(message)
    said = read_object(path)
    digest = str(said.pop("digest", ""))
    try:
        attestation = msgspec.convert(modern(said), Attestation)
    except (msgspec.ValidationError, RecursionError) as error:
        message = f"{path}: not an attestation: {error}"
        raise DamagedError(message) from error
    digests = [digest, *(tensor.digest for tensor in attestation.tensors)]
    require_known(digests, str(path), attestation.tool_version)
    if digest != digest_of(said, algorithm_of(digest)):
        message = f"{path}: its digest is not that of its content: it was damaged, or edited"
        raise DamagedError(message, hint="ask for the file that goldenctl attest wrote")
    return attestation


def digest_of(said: Mapping[str, Any], algorithm: str = BLAKE3) -> str:
    """Return the digest of an attestation's other keys, as plain JSON values."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return of_text(text, algorithm)


def _golden(manifest: Manifest) -> AttestedGolden:
    return AttestedGolden(
        name=manifest.name,
        version=manifest.version,
        content_digest=manifest.current.content_digest,
        manifest_digest=manifest.digest,
    )


def _run(run: GoldenFile) -> AttestedRun:
    said = {key: run.recipe[key] for key in AttestedRecipe.__struct_fields__ if key in run.recipe}
    if (trace := trace_of(run)) is not None:
        said["trace"] = msgspec.to_builtins(for_report(trace))
        said["not_computed"] = [*said["not_computed"], *sorted(trace.rows)]
    return AttestedRun(
        content_digest=run.content_digest,
        recipe=msgspec.convert(said, AttestedRecipe),
        sublayers=tuple(run.recipe.get("sublayers") or run.sublayers),
        failures={
            name: sublayer.failure
            for name, sublayer in run.sublayers.items()
            if sublayer.failure is not None
        },
        simulated=run.simulated,
    )


def _attested(
    run: GoldenFile, report: Report, masks: dict[str, NDArray[Any]]
) -> list[AttestedTensor]:
    found = []
    for result in report.tensors:
        info = run.tensors.get(result.name)
        if info is None:
            continue
        whole = result.absent_rows == result.other_choice_rows == 0
        floats = DTYPES[info.dtype].is_float and info.nbytes > 0 and whole
        values = run.verify(info.name)
        found.append(
            AttestedTensor(
                name=info.name,
                dtype=info.dtype,
                shape=info.shape,
                digest=info.digest,
                state=result.state if whole or not result.ok else "not_computed",
                rule=result.rule,
                share=result.share if math.isfinite(result.share) else None,
                sketch=sketch_values(values, info, padding_by_recipe(masks, info))
                if floats
                else None,
            )
        )
    return found


def _check_golden(golden: AttestedGolden, manifest: Manifest, where: Path, file: Path) -> None:
    ours = _golden(manifest)
    for key in ("name", "version", "content_digest", "manifest_digest"):
        expected, actual = getattr(ours, key), getattr(golden, key)
        if expected != actual:
            message = f"{file}: is of another golden than {where}: {key} {actual}, here {expected}"
            raise DamagedError(message, hint="check out the commit that it was made at")


def _as_run(attestation: Attestation, manifest: Manifest, file: Path) -> GoldenFile:
    """Return the attested run as a file whose tensors cannot be mapped."""
    run = attestation.run
    known = manifest.by_name
    tensors = {}
    for order, tensor in enumerate(attestation.tensors):
        like = known.get(plain_name(tensor.name))
        tensors[tensor.name] = TensorInfo(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            dims=like.dims if like is not None else ("",) * len(tensor.shape),
            role="output",
            op=like.op if like is not None else "",
            order=order,
            offset=0,
            nbytes=math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize,
            digest=tensor.digest,
            time_ns=0,
        )
    origin = {
        "path": str(file),
        "content_digest": attestation.golden.content_digest,
    }
    said = msgspec.to_builtins(run.recipe)
    recipe = {**said, "golden": origin, "sublayers": list(run.sublayers)}
    return GoldenFile(
        path=file,
        kind="run",
        recipe=RecipeObject(recipe, f"{file}: run"),
        simulated=run.simulated,
        format_version=FORMAT_VERSION,
        tool_version=attestation.tool_version,
        created_utc=attestation.created_utc,
        content_digest=run.content_digest,
        tensors=tensors,
        aliases={},
        sublayers={
            name: SublayerInfo(
                name, 0, "failed" if name in run.failures else "ok", run.failures.get(name)
            )
            for name in run.sublayers
        },
    )


def _check_claims(attestation: Attestation, report: Report, file: Path) -> None:
    """Refuse verdicts that cannot be: what surely fails was not passed by any rule of ours."""
    claims = {tensor.name: tensor.state for tensor in attestation.tensors}
    for result in report.tensors:
        if claims.get(result.name) == "passed" and not result.ok and result.state != "unsure":
            message = (
                f"{file}: claims that {result.name} passed, but by its sketch: {result.message}"
            )
            raise DamagedError(message, hint="it was edited, or made with another tolerance")
    claimed = all(state in (PASSED, *NEUTRAL) for state in claims.values())
    if attestation.ok and not (claimed and claims):
        message = f"{file}: claims that all passed, but not for each tensor"
        raise DamagedError(message, hint="it was edited")
