"""The reader of golden and run files: everything is checked, then the file is closed.

A file is untrusted input. The HDF5 library sees it in a process of its own (hdf5.py); the
records that come back are judged here, and the tensors' bytes are mapped without that library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from goldenctl.digests import algorithm_of, matches, modern, of_bytes, require_known
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError, refused_by_machine, why_no_file
from goldenctl.golden import schema
from goldenctl.golden.calls import is_of_modules, module_of, refuse_modules
from goldenctl.golden.hdf5 import Attributes, Dataset, Tree, read_root, read_tree
from goldenctl.golden.schema import SublayerInfo, TensorInfo, content_digest, metadata_digest
from goldenctl.golden.times import read_times
from goldenctl.golden.untrusted_recipe import RecipeObject, read_recipe
from goldenctl.isolate import Refused
from goldenctl.model.config import ModelConfig
from goldenctl.model.jsonfile import parse_object
from goldenctl.model.recipe_config import config_from_recipe
from goldenctl.places import place_of, short_name, step_number, step_path
from goldenctl.threads import map_in_order

_MAX_NAME_CHARACTERS = 1024
_CALL_DEPTH = 4  # cases/CASE/steps/STEP/CALL
_DIGESTS = ("content_digest", "metadata_digest")


@dataclass(frozen=True)
class GoldenFile:
    """A golden or run file, parsed. Holds no open handle; ``map`` maps a tensor on demand.

    ``tensors`` and ``sublayers`` are in execution order; ``aliases`` maps each further hard
    link to the tensor's own name. ``content_digest`` is one digest over all tensor digests.
    """

    path: Path
    kind: str
    recipe: RecipeObject
    simulated: bool
    format_version: int
    tool_version: str
    created_utc: str
    content_digest: str
    tensors: dict[str, TensorInfo] = field(repr=False)
    aliases: dict[str, str] = field(repr=False)
    sublayers: dict[str, SublayerInfo] = field(repr=False)
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @cached_property
    def decode_steps(self) -> frozenset[str]:
        """The paths of the steps that follow the prompt: the last ones of their case."""
        last: dict[str, int] = {}
        for path in self.sublayers:
            case, step = place_of(path).case, step_number(path)
            last[case] = max(last.get(case, 0), step)
        decoded = {case.get("name"): case.get("decode", 0) for case in self.recipe.get("cases", ())}
        return frozenset(
            step_path(case, step)
            for case, end in last.items()
            for step in range(max(0, end + 1 - decoded.get(case, 0)), end + 1)
        )

    @cached_property
    def config(self) -> ModelConfig:
        """The model's config; DamagedError when the recipe has none, or not one of ours, UsageError
        for a golden of modules."""
        refuse_modules(self.recipe, str(self.path))
        return config_from_recipe(
            self.recipe["model"]["config"], where=self.recipe.where, written_by=self.tool_version
        )

    def info(self, name: str) -> TensorInfo:
        """Return a tensor by its own name or by a link to it.

        Raises UsageError, naming the nearest names, when there is none.
        """
        info = self.tensors.get(self.aliases.get(name, name))
        if info is None:
            msg = f"{self.path}: there is no tensor {name}"
            raise UsageError(msg, hint="goldenctl inspect lists them")
        return info

    def map(self, name: str) -> NDArray[Any]:
        """Map a tensor read-only; bfloat16 comes as ``ml_dtypes.bfloat16``.

        Raises DamagedError when the file has become shorter than it was.
        """
        info = self.info(name)
        dtype = DTYPES[info.dtype].numpy
        if not info.nbytes:
            return np.empty(info.shape, dtype)
        try:
            return np.memmap(self.path, dtype, mode="r", offset=info.offset, shape=info.shape)
        except (OSError, ValueError) as error:
            refusal = isinstance(error, OSError) and refused_by_machine(error, str(self.path))
            if refusal:
                raise refusal from error
            msg = f"{self.path}: {name} cannot be mapped: {error}"
            raise DamagedError(msg) from error

    def verify(self, name: str) -> NDArray[Any]:
        """Map a tensor as ``map`` does, after its bytes were found to have their digest.

        They are hashed once while the file is open. Raises DamagedError when they do not.
        """
        info, values = self.info(name), self.map(name)
        if info.name in self._verified:
            return values
        if not matches(info.digest, values.reshape(-1).view(np.uint8).data):
            message = f"{self.path}: {info.name} does not match its digest"
            raise DamagedError(message, hint="the file was changed after it was written")
        self._verified.add(info.name)
        return values

    def digest_in(self, name: str, algorithm: str) -> str:
        """Return a tensor's digest by ``algorithm``: of its bytes where another one is stored."""
        info = self.info(name)
        if algorithm_of(info.digest) == algorithm:
            return info.digest
        return of_bytes(self.verify(name).reshape(-1).view(np.uint8).data, algorithm)

    def content_in(self, algorithm: str) -> str:
        """Return ``content_digest`` as it is where all digests are by ``algorithm``."""
        return content_digest({name: self.digest_in(name, algorithm) for name in self.tensors})

    def verify_all(self, names: Iterable[str]) -> None:
        """Hash tensors in threads, each once; raises DamagedError for the first damaged one."""
        for _ in map_in_order(self.verify, dict.fromkeys(names)):
            pass


def open_golden(path: Path, *, kind: str | None = None) -> GoldenFile:
    """Parse and check a golden or run file.

    Raises UsageError when there is no such file or it is not of ``kind``, DamagedError when
    it is not a complete goldenctl file, MissingError where this machine does not let it be read.
    """
    if not path.is_file():
        msg = f"{path}: {why_no_file(path)}"
        raise UsageError(msg)
    try:
        file_bytes = path.stat().st_size
        golden = _golden(path, read_tree(path, file_bytes), file_bytes)
    except (Refused, OSError, ValueError, msgspec.MsgspecError) as error:
        if kind_of(path) == "archive":
            msg = f"{path}: is an archive that export wrote"
            hint = f"goldenctl import {path} OUT brings it back"
            raise UsageError(msg, hint=hint) from error
        msg = f"{path}: not a usable golden or run file: {error}"
        raise DamagedError(msg, hint="record or replay it again") from error
    if kind is not None and golden.kind != kind:
        msg = f"{path}: expected a {kind} file, got a {golden.kind} file"
        raise UsageError(msg)
    return (
        _with_times(golden)
        if golden.kind == "golden"
        else _with_spreads(golden, golden.recipe.get("iqr_ns") or {})
    )


def open_goldens(paths: Sequence[Path]) -> list[GoldenFile]:
    """Open several files as ``open_golden`` does, at once: each is read in a process of its own."""
    return list(map_in_order(open_golden, paths))


def kind_of(path: Path) -> str | None:
    """Return what a file says it is, ``golden``, ``run`` or ``archive``; None for any other.

    Nothing else of it is judged.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(schema.HDF5_MAGIC)) != schema.HDF5_MAGIC:
                return None
        root = read_root(path)
    except (Refused, OSError, ValueError, msgspec.MsgspecError):
        return None
    if root.get("format") == schema.ARCHIVE_FORMAT:
        return "archive"
    kind = root.get("kind")
    return str(kind) if root.get("format") == schema.FORMAT and kind in schema.KINDS else None


def _with_times(golden: GoldenFile) -> GoldenFile:
    """Add what was measured while a golden was recorded."""
    times = read_times(golden.path, golden.content_digest)

    known = times.time_ns
    timed = replace(
        golden,
        created_utc=times.created_utc,
        tensors={n: replace(i, time_ns=known.get(n, 0)) for n, i in golden.tensors.items()},
        sublayers={n: replace(i, time_ns=known.get(n, 0)) for n, i in golden.sublayers.items()},
    )
    return _with_spreads(timed, times.iqr_ns)


def _with_spreads(file: GoldenFile, iqr_ns: Mapping[str, int]) -> GoldenFile:
    """Add how far the quartiles of repeated times lie apart; a run's recipe holds its own."""
    if not iqr_ns:
        return file
    return replace(
        file,
        tensors={n: replace(i, iqr_ns=iqr_ns.get(n, 0)) for n, i in file.tensors.items()},
        sublayers={n: replace(i, iqr_ns=iqr_ns.get(n, 0)) for n, i in file.sublayers.items()},
    )


def _golden(path: Path, tree: Tree, file_bytes: int) -> GoldenFile:
    """Judge what was extracted; ValueError says what is not as a golden has it."""
    root = modern(tree.root)
    _check_root(root)
    recipe = read_recipe(_text("/", root, "recipe"), path)
    tensors, aliases = _tensors(tree.datasets, file_bytes)
    for name in tree.groups:
        _check_name(name)
    is_sublayer = partial(_is_call, recipe) if is_of_modules(recipe) else _is_sublayer
    sublayers = {
        name: _sublayer(path, name, attributes)
        for name, attributes in tree.groups.items()
        if is_sublayer(name)
    }
    found = [*(info.digest for info in tensors), *(root[key] for key in _DIGESTS if key in root)]
    require_known(found, str(path), _text("/", root, "tool_version"))
    _check_digests(root, tree, tensors, aliases)
    return GoldenFile(
        path=path,
        kind=_text("/", root, "kind"),
        recipe=recipe,
        simulated=root.get("simulated", 0) == 1,
        format_version=_number("/", root, "format_version"),
        tool_version=_text("/", root, "tool_version"),
        created_utc=_text("/", root, "created_utc"),
        content_digest=_text("/", root, "content_digest"),
        tensors={info.name: info for info in sorted(tensors, key=lambda info: info.order)},
        aliases=aliases,
        sublayers=_in_execution_order(sublayers, tensors),
    )


def _check_root(root: Attributes) -> None:
    if root.get("format") != schema.FORMAT:
        msg = "root attribute format is not 'goldenctl'"
        raise ValueError(msg)
    version = root.get("format_version")
    if version not in schema.READABLE_VERSIONS:
        msg = f"format version {version} is not supported, expected {schema.FORMAT_VERSION}"
        raise ValueError(msg)
    if root.get("complete") != 1:
        msg = "the file was never completed"
        raise ValueError(msg)
    if root.get("kind") not in schema.KINDS:
        msg = f"kind is {root.get('kind')!r}, expected one of {schema.KINDS}"
        raise ValueError(msg)


def _tensors(datasets: list[Dataset], file_bytes: int) -> tuple[list[TensorInfo], dict[str, str]]:
    """Return the tensors, and for each further link the name of its tensor."""
    tensors: dict[str, TensorInfo] = {}
    aliases: dict[str, str] = {}
    for dataset in datasets:
        info = _tensor(dataset, file_bytes)
        if info.name in tensors:
            msg = f"{dataset.paths[0]}: two datasets claim the name {info.name}"
            raise ValueError(msg)
        if info.name not in dataset.paths:
            msg = f"{info.name}: a link names this tensor, but it is not there"
            raise ValueError(msg)
        for path in dataset.paths:
            _check_name(path)
        tensors[info.name] = info
        aliases.update({path: info.name for path in dataset.paths if path != info.name})
    _refuse_overlaps(list(tensors.values()))
    return list(tensors.values()), aliases


def _tensor(dataset: Dataset, file_bytes: int) -> TensorInfo:
    path, attributes = dataset.paths[0], modern(dataset.attributes)
    dtype, shape = DTYPES[dataset.dtype], dataset.shape
    nbytes = math.prod(shape) * dtype.itemsize
    offset = dataset.offset
    if nbytes and (offset is None or not 0 <= offset <= file_bytes - nbytes):
        msg = f"{path}: {nbytes} bytes at offset {offset} exceed the file's end"
        raise ValueError(msg)
    role = _text(path, attributes, "role")
    dims = tuple(_text(path, attributes, "dims").split(","))
    if role not in schema.ROLES or len(dims) != len(shape):
        msg = f"{path}: role {role!r} or dims {dims} do not fit shape {shape}"
        raise ValueError(msg)
    return TensorInfo(
        name=_text(path, attributes, "name"),
        dtype=dtype.name,
        shape=shape,
        dims=dims,
        role=role,
        op=_text(path, attributes, "op"),
        order=_number(path, attributes, "order"),
        offset=offset or 0,
        nbytes=nbytes,
        digest=_text(path, attributes, "digest"),
        time_ns=_number(path, attributes, "time_ns"),
    )


def _check_name(path: str) -> None:
    """Refuse what could be taken for another place, or would write to a terminal."""
    odd = any(part in ("", ".", "..") for part in path.split("/"))
    if odd or not path.isprintable() or len(path) > _MAX_NAME_CHARACTERS:
        msg = f"{path[:_MAX_NAME_CHARACTERS]}: not a name that a golden may hold"
        raise ValueError(msg)


def _sublayer(path: Path, name: str, attributes: Attributes) -> SublayerInfo:
    failure = None
    if "failure" in attributes:
        text = _text(name, attributes, "failure")
        parsed = parse_object(text.encode(), f"{path}: {name}: failure")
        failure = msgspec.convert(parsed, dict[str, str | list[str]])
    status = str(attributes.get("status", "ok"))
    if status not in ("ok", "failed") or (status == "failed") != (failure is not None):
        msg = f"{name}: status {status!r} and its failure do not fit"
        raise ValueError(msg)
    return SublayerInfo(name, int(attributes.get("time_ns", 0)), status, failure)


def _is_sublayer(name: str) -> bool:
    """Whether a group is a sublayer: not ``layers``, ``layers/NN``, or one of its folders."""
    parts = short_name(name).split(".")
    return len(parts) == (3 if parts[0] == "layers" else 1) and parts[0] != ""


def _is_call(recipe: Mapping[str, Any], name: str) -> bool:
    """Whether a group is a call of a module under the name that it was recorded by."""
    shared = recipe["modules"].get("shared", {})
    return (
        name.count("/") == _CALL_DEPTH
        and place_of(name).step != ""
        and (module_of(name) not in shared)
    )


def _check_digests(
    root: Attributes, tree: Tree, tensors: list[TensorInfo], aliases: dict[str, str]
) -> None:
    """Compare the digests over all tensors and over all that is said of them."""
    content = content_digest({info.name: info.digest for info in tensors})
    if _text("/", root, "content_digest") != content:
        msg = "content_digest is not that of the tensors' digests: some are missing or changed"
        raise ValueError(msg)
    attributes = {"/": tree.root, **tree.groups}
    for info, dataset in zip(tensors, tree.datasets, strict=True):
        attributes[info.name] = schema.described(info.dtype, info.shape, dataset.attributes)
    stated = _text("/", root, "metadata_digest")
    if metadata_digest(attributes, aliases, algorithm_of(stated)) != stated:
        msg = "metadata_digest is not that of its attributes: some are missing or changed"
        raise ValueError(msg)


def _in_execution_order(
    sublayers: dict[str, SublayerInfo], tensors: list[TensorInfo]
) -> dict[str, SublayerInfo]:
    first: dict[str, int] = {}
    for info in tensors:
        group = info.place.group
        first[group] = min(first.get(group, info.order), info.order)
    names = sorted(sublayers, key=lambda name: (first.get(name, len(tensors)), name))
    return {name: sublayers[name] for name in names}


def _refuse_overlaps(tensors: list[TensorInfo]) -> None:
    end, before = 0, ""
    for info in sorted(tensors, key=lambda info: info.offset):
        if info.nbytes and info.offset < end:
            msg = f"{info.name}: its bytes overlap those of {before}"
            raise ValueError(msg)
        if info.nbytes:
            end, before = info.offset + info.nbytes, info.name


def _text(path: str, attributes: Attributes, key: str) -> str:
    return str(_attribute(path, attributes, key))


def _number(path: str, attributes: Attributes, key: str) -> int:
    return int(_attribute(path, attributes, key))


def _attribute(path: str, attributes: Attributes, key: str) -> str | int:
    if key not in attributes:
        msg = f"{path}: there is no attribute {key}"
        raise ValueError(msg)
    return attributes[key]
