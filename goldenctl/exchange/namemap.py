"""Name maps: which tensor of another engine's dump is which tensor of the golden.

A map is a small TOML or JSON file (docs/moving-goldens.md). Patterns know ``{layer}``,
``{case}`` and ``{step}``; ``{layer:02}`` is the number with two digits. The dump's names also
know ``{rank}`` and numbers that count from elsewhere, ``{layer+1}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from goldenctl.dtypes import FLOAT_DTYPES
from goldenctl.errors import UsageError
from goldenctl.exchange.select import dotted_name
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.jsonfile import read_object
from goldenctl.model.tomlfile import LIMIT_BYTES, read_toml
from goldenctl.places import layer_of

MAP_VERSION = 1
_EMPTY = (
    "it maps no tensor: expected tables [[tensor]]; the comments that import DUMP --golden GOLDEN "
    "--list prints say which of the dump's tensors come near, and what is different"
)
Lacking = Literal["error", "missing", "not_computed"]
MAX_RANKS = 1024
_FIELD = re.compile(r"\{(layer|case|step|rank)(?:([+-])(\d{1,5}))?(?::0([1-9]))?\}")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where one kind of tensor comes from.

    ``split`` and ``part`` cut the last axis of the dump's tensor, each block of it for itself
    with ``per``. ``ranks`` tensors, whose names differ by ``{rank}``, are joined along the axis
    ``join`` or added. ``axes`` name the axes of what is left (sizes multiply with ``*``), ``crop``
    and ``crop_front`` cut axes down to the golden's size at their end and their front, ``stacked``
    takes a step's own tokens of all. ``head_dim`` is the order of a head's elements in the dump,
    ``plus`` a second tensor that is added, ``dtype`` what the engine computed in.
    """

    golden: str
    dump: str
    split: tuple[str, ...] = ()
    part: int = 0
    axes: tuple[str, ...] | None = None
    crop: tuple[str, ...] = ()
    plus: str | None = None
    dtype: str | None = None
    per: str | None = None
    ranks: int = 1
    join: int | Literal["sum"] = -1
    crop_front: tuple[str, ...] = ()
    stacked: bool = False
    head_dim: Literal["interleaved", "halves"] | None = None


class NameMap(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A whole map. ``not_computed`` are patterns of the golden's tensors that the engine does
    not yield; ``lacking`` says what becomes of others that the dump does not have."""

    map_version: int
    engine: str = ""
    mode: Literal["chain", "sublayer", "op"] = "chain"
    lacking: Lacking = "error"
    not_computed: tuple[str, ...] = ()
    tensor: tuple[Entry, ...] = ()


def load_map(path: Path) -> NameMap:
    """Read a map; UsageError naming the file and what is wrong with it."""
    try:
        raw = (
            read_object(path, limit_bytes=LIMIT_BYTES)
            if path.suffix == ".json"
            else read_toml(path)
        )
        loaded = msgspec.convert(raw, NameMap)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path}: not a name map: {error}"
        raise UsageError(message, hint="import DUMP --golden GOLDEN --list suggests one") from error
    problem = _problem(loaded)
    if problem:
        message = f"{path}: {problem}"
        raise UsageError(message)
    return loaded


def matches(pattern: str, info: TensorInfo) -> bool:
    """Tell whether a golden pattern means this tensor: ``layers.{layer}.mlp.output``.

    It is held against the dotted name, or against the full one where it has a ``/``. A field
    stands for the tensor's own number as its name writes it, so nothing is searched for.
    """
    layer = info.sublayer.split(".")[1] if layer_of(info.sublayer) is not None else None
    own = {"layer": layer, "case": info.case, "step": info.step, "rank": None}
    wanted = [field[1] for field in _FIELD.finditer(pattern)]
    if any(not own[name] for name in wanted):
        return False
    filled = _FIELD.sub(lambda field: str(own[field[1]]), pattern)
    return filled == (info.name if "/" in pattern else dotted_name(info.name))


def fill(pattern: str, info: TensorInfo, *, rank: int = 0) -> str:
    """Return the dump's name for one of the golden's tensors, of one rank where it has some."""
    numbers = {"layer": layer_of(info.sublayer) or 0, "step": int(info.step or 0), "rank": rank}

    def value(field: re.Match[str]) -> str:
        name, sign, offset, digits = field.groups()
        if name == "case":
            return info.case
        number = numbers[name] + int(f"{sign or '+'}{offset or 0}")
        return f"{number:0{digits}d}" if digits else str(number)

    return _FIELD.sub(value, pattern)


def is_left_out(patterns: tuple[str, ...], info: TensorInfo) -> bool:
    """Tell whether a ``not_computed`` pattern means this tensor: a tap's name, or a shell
    pattern over the dotted name."""
    dotted = dotted_name(info.name)
    return any(p == info.tap or fnmatchcase(dotted, p) for p in patterns)


def product(axis: str, sizes: Mapping[str, int]) -> int:
    """Return the size that ``head*head_dim`` stands for; KeyError for an unknown name."""
    total = 1
    for term in axis.split("*"):
        name = term.strip()
        total *= int(name) if name.isdigit() else sizes[name]
    return total


def encode(mapping: NameMap) -> str:
    """Return a map as TOML."""
    lines = [f"map_version = {mapping.map_version}", f"engine = {quoted(mapping.engine)}"]
    lines += [f"mode = {quoted(mapping.mode)}", f"lacking = {quoted(mapping.lacking)}"]
    if mapping.not_computed:
        lines.append(f"not_computed = {quoted(mapping.not_computed)}")
    for entry in mapping.tensor:
        lines += ["", "[[tensor]]"]
        lines += [f"{key} = {quoted(value)}" for key, value in msgspec.to_builtins(entry).items()]
    return "\n".join(lines) + "\n"


def quoted(value: object) -> str:
    """Return a value as TOML: of texts, lists of them, whole numbers and booleans JSON's way."""
    return json.dumps(value, ensure_ascii=False)


def _problem(mapping: NameMap) -> str:
    if mapping.map_version != MAP_VERSION:
        return f"map_version is {mapping.map_version}, expected {MAP_VERSION}"
    for number, entry in enumerate(mapping.tensor, start=1):
        if problem := _entry_problem(entry):
            return f"tensor {number} ({entry.golden}): {problem}"
    return "" if mapping.tensor else _EMPTY


def _entry_problem(entry: Entry) -> str:
    return _pattern_problem(entry) or _axis_problem(entry) or _rank_problem(entry) or _dtype(entry)


def _pattern_problem(entry: Entry) -> str:
    for pattern in (entry.golden, entry.dump, entry.plus or ""):
        rest = _FIELD.sub("", pattern)
        if "{" in rest or "}" in rest:
            return (
                f"{pattern!r} has a field other than {{layer}}, {{case}}, {{step}}, {{rank}}, "
                "{layer+1}, {layer:02}"
            )
        if any(field[1] == "case" and field[2] for field in _FIELD.finditer(pattern)):
            return f"{pattern!r}: a case has a name, no number"
    own = [field for field in _FIELD.finditer(entry.golden) if field[2] or field[1] == "rank"]
    return f"{own[0][0]} belongs into the dump's name, not the golden's" if own else ""


def _axis_problem(entry: Entry) -> str:
    for axis in (*entry.split, *(entry.axes or ()), *entry.crop, *entry.crop_front):
        if not all(re.fullmatch(r"[a-z_]+|\d{1,9}", term.strip()) for term in axis.split("*")):
            return f"axis {axis!r} is not a product of dimension names, such as head*head_dim"
    if entry.split and not 0 <= entry.part < len(entry.split):
        return f"part {entry.part} is not one of the {len(entry.split)} of split"
    if (entry.part or entry.per) and not entry.split:
        return f"{'part' if entry.part else 'per'} needs split"
    if entry.per and not re.fullmatch(r"[a-z_]+|\d{1,9}", entry.per):
        return f"per {entry.per!r} is not a dimension name, such as kv_head"
    both = set(entry.crop) & set(entry.crop_front)
    return f"{min(both)!r} is in crop and in crop_front" if both else ""


def _rank_problem(entry: Entry) -> str:
    named = any("{rank" in pattern for pattern in (entry.dump, entry.plus or ""))
    if not 1 <= entry.ranks <= MAX_RANKS:
        return f"ranks is {entry.ranks}, expected 1 to {MAX_RANKS}"
    if entry.ranks > 1 and "{rank" not in entry.dump:
        return "ranks needs {rank} in the dump's name"
    if named and entry.ranks == 1:
        return "{rank} needs ranks, the number of them"
    if isinstance(entry.join, int) and not -8 <= entry.join < 8:
        return f"join {entry.join} is not an axis"
    return ""


def _dtype(entry: Entry) -> str:
    if entry.dtype is not None and entry.dtype not in FLOAT_DTYPES:
        return f"dtype {entry.dtype!r} is not one of {', '.join(FLOAT_DTYPES)}"
    return ""
