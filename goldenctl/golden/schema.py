"""Names, attributes and frozen records of a golden file (docs/file-format.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goldenctl import digests as algorithms
from goldenctl.digests import BLAKE3, SHA256
from goldenctl.dtypes import DTYPES
from goldenctl.places import Place, place

FORMAT = "goldenctl"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ARCHIVE_FORMAT = "goldenctl-archive"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)  # the first has SHA-256 and no other algorithm
KINDS = ("golden", "run")
BESIDE = ("budget", "oracle")  # what is said of other tensors
ROLES = ("constant", "input", "tap", "output", "composed", *BESIDE)
# What a budget holds per row, and where the truth it is measured from starts.
BUDGET_STATISTICS = ("l2", "max", "floor_l2", "floor_max")
BUDGET_SCOPES = ("op", "sublayer", "chain")
ALIGNMENT_BYTES = 64
_WRITTEN_LAST = ("complete", "metadata_digest", "metadata_sha256")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be stored: its place, type, shape and meaning.

    ``name`` is the full path without a leading slash. ``op`` is the kind of the op that
    yields it, empty for inputs and constants.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    role: str
    op: str = ""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TensorInfo:
    """A stored tensor: a spec plus where its bytes are, in which order it was computed,
    their digest, the time that its op took and the distance of the quartiles of several such
    times (0 where it was taken once)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    role: str
    op: str
    order: int
    offset: int
    nbytes: int
    digest: str
    time_ns: int
    iqr_ns: int = 0

    @property
    def place(self) -> Place:
        return place(self.name)

    @property
    def case(self) -> str:
        """The case's name; empty for constants."""
        return self.place.case

    @property
    def step(self) -> str:
        """``00`` for the prefill, then ``01``..; empty for what is not in a step."""
        return self.place.step

    @property
    def sublayer(self) -> str:
        """Dotted name within its step, such as ``layers.03.attention``; empty outside one."""
        return self.place.sublayer

    @property
    def tap(self) -> str:
        return self.place.tap


@dataclass(frozen=True)
class SublayerInfo:
    """What a file says of one sublayer: its time and, in a run, whether it failed and how."""

    name: str
    time_ns: int
    status: str = "ok"
    failure: dict[str, Any] | None = None
    iqr_ns: int = 0


def budget_path(name: str, *, recorded: str, actual: str) -> str:
    """Return where a tensor's budget is: for results in the recorded dtype, or in another."""
    at = place(name)
    folder = at.group if actual == recorded else f"{at.group}/{actual}"
    return f"{folder}/budget/{at.tap}"


def fused_budget_path(name: str, *, recorded: str, actual: str) -> str:
    """Return where the budget of a fused kernel's result is, judged from what it was given."""
    return budget_path(name, recorded=recorded, actual=actual).replace("/budget/", "/fused/budget/")


def content_digest(digests: Mapping[str, str]) -> str:
    """Return one digest over the sorted names and digests of all tensors.

    Where these are SHA-256 it is the one that such a golden has had from the start: SHA-256, of
    bare digits.
    """
    used = {algorithms.algorithm_of(digest) for digest in digests.values()}
    said = {n: d.removeprefix(f"{SHA256}:") if used <= {SHA256} else d for n, d in digests.items()}
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(said.items()))
    return algorithms.of_text(lines, SHA256 if used <= {SHA256} else BLAKE3)


def described(
    dtype: str, shape: Sequence[int], attributes: Mapping[str, str | int]
) -> dict[str, str | int]:
    """Return a dataset's attributes with its type and shape among them, for the digest."""
    return {**attributes, "dtype": dtype, "shape": ",".join(map(str, shape))}


def metadata_digest(
    attributes: Mapping[str, Mapping[str, str | int]],
    links: Mapping[str, str],
    algorithm: str = BLAKE3,
) -> str:
    """Return one digest over what a file says beside its tensors' bytes.

    ``attributes`` are those of every object by its path (``/`` for the root), ``links`` the
    further names of tensors. HDF5 checks its own headers, but not long attributes.
    """
    root = {k: v for k, v in attributes["/"].items() if k not in _WRITTEN_LAST}
    stated = {path: dict(values) for path, values in attributes.items() if values}
    text = json.dumps([{**stated, "/": root}, dict(links)], sort_keys=True)
    return algorithms.of_text(text, algorithm)
