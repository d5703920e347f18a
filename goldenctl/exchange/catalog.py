"""The catalog in an exported file: enough to write the same golden or run again.

Every format carries one catalog as JSON beside the tensors' bytes. It is untrusted when read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from goldenctl.digests import Digest, modern, require_known
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import (
    KINDS,
    ROLES,
    SublayerInfo,
    TensorInfo,
    TensorSpec,
    content_digest,
)
from goldenctl.golden.untrusted_recipe import read_recipe
from goldenctl.places import place

CATALOG_VERSION = 2
_READABLE_VERSIONS = (1, 2)  # the first calls its digests sha256
LIMIT_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9_#.=+-]{1,128}(/[A-Za-z0-9_#.=+-]{1,128}){0,12}")
_MAX_RANK = 8
_MAX_BYTES = 1 << 50


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tensor's entry; ``digest`` is of the bytes that the golden stores."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    role: str
    digest: Digest
    op: str = ""
    time_ns: int = 0
    iqr_ns: int = 0

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.dtype, self.shape, self.dims, self.role, self.op)


class Sublayer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A sublayer's entry, as in SublayerInfo."""

    name: str
    time_ns: int = 0
    iqr_ns: int = 0
    status: str = "ok"
    failure: dict[str, Any] | None = None


class Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A golden or run without its bytes; ``tensors`` and ``sublayers`` in execution order.

    ``links`` maps each further name to the tensor it is. ``source_content_digest`` is the
    content digest of the file it was made from, which is another when that was cut.
    """

    catalog_version: int
    kind: str
    tool_version: str
    created_utc: str
    simulated: bool
    source_content_digest: str
    recipe: dict[str, Any]
    tensors: tuple[Tensor, ...]
    links: dict[str, str]
    sublayers: tuple[Sublayer, ...]

    @property
    def nbytes(self) -> int:
        return sum(tensor.spec.nbytes for tensor in self.tensors)

    @property
    def content_digest(self) -> str:
        return content_digest({tensor.name: tensor.digest for tensor in self.tensors})


def catalog_of(
    file: GoldenFile, tensors: Mapping[str, TensorInfo], links: Mapping[str, str]
) -> Catalog:
    """Describe ``tensors`` of a file, ``links`` to them, and the sublayers they are in."""
    folders = {place(name).group for name in (*tensors, *links)}
    places = {name: number for number, name in enumerate(file.sublayers)}
    last = len(places)
    return Catalog(
        catalog_version=CATALOG_VERSION,
        kind=file.kind,
        tool_version=file.tool_version,
        created_utc=file.created_utc,
        simulated=file.simulated,
        source_content_digest=file.content_digest,
        recipe=file.recipe,
        tensors=tuple(_entry(info) for info in tensors.values()),
        links=dict(
            sorted(
                links.items(), key=lambda link: (places.get(place(link[0]).group, last), link[0])
            )
        ),
        sublayers=tuple(
            Sublayer(info.name, info.time_ns, info.iqr_ns, info.status, info.failure)
            for info in file.sublayers.values()
            if info.name in folders
        ),
    )


def encode(catalog: Catalog) -> bytes:
    """Return the catalog as JSON."""
    return msgspec.json.encode(catalog)


def decode(data: bytes, where: str) -> Catalog:
    """Parse and check a catalog; DamagedError naming ``where`` when anything in it is off."""
    try:
        catalog = msgspec.convert(modern(msgspec.json.decode(data)), Catalog)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{where}: its catalog is not readable: {error}"
        raise DamagedError(message, hint="export it again") from error
    digests = [catalog.source_content_digest, *(tensor.digest for tensor in catalog.tensors)]
    require_known(digests, f"{where}: its catalog", catalog.tool_version)
    read_recipe(json.dumps(catalog.recipe), Path(where))
    problem = _problem(catalog)
    if problem:
        message = f"{where}: its catalog is wrong: {problem}"
        raise DamagedError(message, hint="export it again")
    return catalog


def sublayer_infos(catalog: Catalog) -> list[SublayerInfo]:
    """Return the sublayers as the writer takes them."""
    return [SublayerInfo(s.name, s.time_ns, s.status, s.failure) for s in catalog.sublayers]


def _entry(info: TensorInfo) -> Tensor:
    return Tensor(
        name=info.name,
        dtype=info.dtype,
        shape=info.shape,
        dims=info.dims,
        role=info.role,
        digest=info.digest,
        op=info.op,
        time_ns=info.time_ns,
        iqr_ns=info.iqr_ns,
    )


def _problem(catalog: Catalog) -> str:
    """Return what is wrong with a catalog, empty when nothing is."""
    if catalog.catalog_version not in _READABLE_VERSIONS:
        return f"version {catalog.catalog_version}, expected {CATALOG_VERSION}"
    if catalog.kind not in KINDS:
        return f"kind {catalog.kind[:40]!r}"
    names = [tensor.name for tensor in catalog.tensors]
    groups = [sublayer.name for sublayer in catalog.sublayers]
    every = [*names, *catalog.links, *groups]
    if len(set(every)) != len(every):
        return "a name comes twice"
    for name in every:
        if not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
            return f"name {name[:80]!r}"
    missing = set(catalog.links.values()) - set(names)
    if missing:
        return f"a link leads to {min(missing)[:80]!r}, which is not there"
    inside = {folder for name in every for folder in _folders(name)}
    if inside & {*names, *catalog.links}:
        return "a tensor's name is that of a folder"
    wrong_status = [s.name for s in catalog.sublayers if (s.status == "failed") != bool(s.failure)]
    if wrong_status or any(s.status not in ("ok", "failed") for s in catalog.sublayers):
        return "a sublayer's status and its failure do not fit"
    if not all(0 <= ns < 1 << 62 for s in catalog.sublayers for ns in (s.time_ns, s.iqr_ns)):
        return "a sublayer's time is out of range"
    for tensor in catalog.tensors:
        if problem := _tensor_problem(tensor):
            return f"{tensor.name}: {problem}"
    return "" if catalog.nbytes < _MAX_BYTES else f"{catalog.nbytes} bytes of tensors"


def _folders(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _tensor_problem(tensor: Tensor) -> str:
    if tensor.dtype not in DTYPES:
        return f"dtype {tensor.dtype[:40]!r}"
    shape = tensor.shape
    if len(shape) > _MAX_RANK or any(size < 0 for size in shape) or math.prod(shape) >= _MAX_BYTES:
        return f"shape {list(shape)}"
    if len(tensor.dims) != len(shape) or tensor.role not in ROLES:
        return f"role {tensor.role[:40]!r} or dims do not fit the shape"
    if any(not re.fullmatch(r"[a-z0-9_]{1,32}", dim) for dim in tensor.dims):
        return "a dimension label is odd"
    if not re.fullmatch(r"[a-z0-9_]{0,32}", tensor.op) or not all(
        0 <= ns < 1 << 62 for ns in (tensor.time_ns, tensor.iqr_ns)
    ):
        return "op or a time is odd"
    return ""
