"""The manifest of a golden set: its records, its reader and its writer.

A manifest is untrusted input: its size is limited, unknown keys are refused unless they start
with ``x-``, names cannot lead out of a file, numbers are bounded. It is written as sorted
JSON with one line for each tensor, in execution order, so that the first changed line of a
git diff is the first op that changed. ``digest`` is over all the rest (docs/manifest.md).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from goldenctl.digests import BLAKE3, Digest, algorithm_of, modern, of_text, require_known
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.golden.recipe import Recipe
from goldenctl.golden.schema import ROLES
from goldenctl.golden.sketch import Sketch
from goldenctl.model.jsonfile import parse_object
from goldenctl.records.policy import Policy
from goldenctl.sets.names import (
    GoldenSet,
    existing_set,
    parse_reference,
    refuse_leading_out,
    require_name,
)

FORMAT = "goldenctl-manifest"
FORMAT_VERSION = 2
_READABLE_VERSIONS = (1, 2)  # the first calls its digests sha256
IGNORABLE = "x-"
LIMIT_BYTES = 64 << 20
MAX_DEPTH = 16
_OPEN_LEVELS = 3

_WORD = "[A-Za-z0-9_][A-Za-z0-9_.+#-]*"
Name = Annotated[str, Meta(pattern=f"^{_WORD}(/{_WORD})*$", max_length=512)]
SetName = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Version = Annotated[int, Meta(ge=1, le=999_999)]
Size = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Text = Annotated[str, Meta(max_length=4096)]
Dtype = Annotated[str, Meta(pattern=f"^({'|'.join(DTYPES)})$")]
Role = Annotated[str, Meta(pattern=f"^({'|'.join(ROLES)})$")]
Shape = Annotated[tuple[Size, ...], Meta(max_length=8)]
Dims = Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=8)]


class Tensor(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One tensor of the golden: what it is, the digest of its bytes, and its sketch."""

    name: Name
    dtype: Dtype
    shape: Shape
    dims: Dims
    role: Role
    op: Annotated[str, Meta(max_length=64)] = ""
    digest: Digest
    sketch: Sketch | None = None


class VersionEntry(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One version of the set: the file's size and digests, when and by what it was written.

    ``content_digest`` is over the names and digests of all tensors: equal content has it
    equal, whatever recorded it. ``note`` says how it differs from the version before it.
    """

    version: Version
    bytes: Size
    digest: Digest
    content_digest: Digest
    created_utc: Annotated[str, Meta(max_length=32)] = ""
    tool_version: Annotated[str, Meta(max_length=64)] = ""
    note: Text = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True, forbid_unknown_fields=True):
    """A golden set's manifest. It describes ``version``; ``versions`` is the set's history.

    ``recipe`` is the golden's own, with the token ids of each case added: enough to record
    the same again. ``digest`` is over everything else of the file that it was read from; one
    that was not read from a file has none yet.
    """

    format: Annotated[str, Meta(pattern=f"^{FORMAT}$")] = FORMAT
    format_version: Annotated[int, Meta(ge=1, le=FORMAT_VERSION)] = FORMAT_VERSION
    name: SetName
    version: Version
    versions: tuple[VersionEntry, ...]
    recipe: Recipe
    tolerance: Policy
    tensors: tuple[Tensor, ...]
    digest: Digest = ""

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        """The tensors by their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def current(self) -> VersionEntry:
        """The entry of the version that the manifest describes."""
        return next(entry for entry in self.versions if entry.version == self.version)


def load_manifest(golden_set: GoldenSet) -> Manifest:
    """Read a set's manifest.

    Raises MissingError when it has none, DamagedError when it is not one or is another set's.
    """
    path = golden_set.manifest_path
    refuse_leading_out(path, golden_set.folder)
    if not path.is_file():
        message = f"{path}: there is no manifest"
        raise MissingError(message, hint=f"goldenctl manifest {golden_set.name} writes it")
    manifest = read_manifest(path)
    if manifest.name != golden_set.name:
        message = f"{path}: is the manifest of {manifest.name}, expected that of {golden_set.name}"
        raise DamagedError(message)
    return manifest


def find_manifest(text: str, goldens: Path | None = None) -> tuple[Manifest, Path]:
    """Return the manifest that ``text`` names, and its file: a path, or the name of a set."""
    if parse_reference(text) is None or Path(text).is_file():
        return read_manifest(Path(text)), Path(text)
    found = existing_set(require_name(text), goldens)
    return load_manifest(found), found.manifest_path


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file; MissingError when there is none, DamagedError when it is not one."""
    if path.exists() and not path.is_file():
        message = f"{path}: is not a file"
        raise MissingError(message)
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise MissingError(message) from error
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, where: str = "manifest") -> Manifest:
    """Return the manifest in ``data``; DamagedError naming ``where`` and the key at fault."""
    if len(data) > LIMIT_BYTES:
        message = f"{where}: larger than the {LIMIT_BYTES} bytes that are allowed"
        raise DamagedError(message)
    raw = parse_object(data, where)
    _check_format(raw, where)
    try:
        said = _without_ignorable(raw, MAX_DEPTH)
        manifest = msgspec.convert({**modern(said), "format_version": FORMAT_VERSION}, Manifest)
    except (msgspec.ValidationError, ValueError) as error:
        message = f"{where}: not a manifest: {error}"
        raise DamagedError(message) from error
    _check_consistent(manifest, where)
    if manifest.digest != _digest(said, algorithm_of(manifest.digest)):
        message = f"{where}: its digest is not that of its content: it was damaged, or edited"
        raise DamagedError(message, hint="restore it, or remove it and run goldenctl manifest")
    return manifest


def _digest(said: Mapping[str, Any], algorithm: str = BLAKE3) -> str:
    """Return the digest over all keys but ``digest`` and the ignorable ones: one flipped bit in
    a sketch or a tolerance would change verdicts."""
    return of_text(_compact({k: v for k, v in said.items() if k != "digest"}), algorithm)


def _check_format(raw: Mapping[str, Any], where: str) -> None:
    if raw.get("format") != FORMAT:
        message = f"{where}: not a manifest: format is not {FORMAT!r}"
        raise DamagedError(message)
    version = raw.get("format_version")
    if version not in _READABLE_VERSIONS:
        found = version if isinstance(version, int) and abs(version) < 1 << 53 else "none"
        message = f"{where}: manifest format version {found}, expected {FORMAT_VERSION}"
        raise DamagedError(message, hint="a newer goldenctl may read it")


def _check_consistent(manifest: Manifest, where: str) -> None:
    require_known(_digests(manifest), where, _writer(manifest))
    numbers = [entry.version for entry in manifest.versions]
    problem = ""
    if numbers != sorted(set(numbers)) or manifest.version not in numbers:
        problem = f"versions {numbers[:8]} are not rising, or v{manifest.version} is not in them"
    elif len(manifest.by_name) != len(manifest.tensors):
        problem = "two tensors have one name"
    else:
        odd = [t.name for t in manifest.tensors if len(t.dims) != len(t.shape)]
        problem = f"tensor {odd[0]}: dims and shape differ in length" if odd else ""
        limits = [asdict(limit).values() for limit in manifest.tolerance.table.values()]
        if not all(math.isfinite(v) and v >= 0 for row in limits for v in row if v is not None):
            problem = "tolerance: a limit is not a finite number of 0 or more"
    if problem:
        message = f"{where}: {problem}"
        raise DamagedError(message)


def _without_ignorable(value: Any, depth: int) -> Any:
    """Leave out the keys that start with ``x-``, at every level; ValueError below ``depth``."""
    if depth < 0:
        message = f"it is nested deeper than {MAX_DEPTH} levels"
        raise ValueError(message)
    if isinstance(value, dict):
        kept = ((k, v) for k, v in value.items() if not k.startswith(IGNORABLE))
        return {k: _without_ignorable(v, depth - 1) for k, v in kept}
    if isinstance(value, list):
        return [_without_ignorable(item, depth - 1) for item in value]
    return value


def _digests(manifest: Manifest) -> Iterator[str]:
    yield manifest.digest
    for entry in manifest.versions:
        yield from (entry.digest, entry.content_digest)
    yield from (tensor.digest for tensor in manifest.tensors)


def _writer(manifest: Manifest) -> str:
    return manifest.versions[-1].tool_version if manifest.versions else ""


def ignorable(data: bytes, where: str = "manifest") -> dict[str, Any]:
    """Return the manifest's own ``x-`` keys, which are kept when it is renewed."""
    return {k: v for k, v in parse_object(data, where).items() if k.startswith(IGNORABLE)}


def dump_manifest(manifest: Manifest, extra: Mapping[str, Any] | None = None) -> bytes:
    """Return a manifest as it is written: sorted keys, one line for each version and tensor.

    Raises UsageError for one that would be larger than a reader allows.
    """
    said = msgspec.to_builtins(manifest)
    said["digest"] = _digest(said)
    data = (_laid_out({**said, **(extra or {})}) + "\n").encode()
    if len(data) > LIMIT_BYTES:
        message = (
            f"{manifest.name}: its manifest would have {len(data):,} bytes for "
            f"{len(manifest.tensors):,} tensors, {LIMIT_BYTES:,} are allowed"
        )
        raise UsageError(message, hint="record with --taps sublayer, fewer layers or fewer steps")
    return data


def _laid_out(value: Any, depth: int = 0) -> str:
    """JSON with one line for each key; rows of a list and small deep objects take one line."""
    if isinstance(value, dict) and (depth < _OPEN_LEVELS or any(map(_nested, value.values()))):
        rows = [f"{_compact(k)}: {_laid_out(value[k], depth + 1)}" for k in sorted(value)]
        left, right = "{", "}"
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        rows = [_compact(item) for item in value]
        left, right = "[", "]"
    else:
        return _compact(value)
    indent = " " * depth
    return left + "".join(f"\n{indent} {row}," for row in rows)[:-1] + f"\n{indent}" + right


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest; keys that start with ``x-`` are allowed anywhere."""
    schema = msgspec.json.schema(Manifest)
    top = schema["$defs"]["Manifest"]
    top["properties"]["digest"] = msgspec.json.schema(Digest)
    top["required"] = sorted([*top["required"], "digest"])
    for definition in schema["$defs"].values():
        if definition.get("additionalProperties") is False:
            definition["patternProperties"] = {f"^{re.escape(IGNORABLE)}": {}}
    return schema
