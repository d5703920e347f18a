"""Owns name maps: which tensor of another engine's dump is which tensor of the golden.

A map is a small TOML or JSON file (docs/moving-goldens.md). Patterns know ``{layer}``,
``{case}`` and ``{step}``; ``{layer:02}`` is the number with two digits.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from goldenctl.errors import UsageError
from goldenctl.exchange.select import dotted_name
from goldenctl.golden.dtypes import FLOAT_DTYPES
from goldenctl.golden.schema import TensorInfo

MAP_VERSION = 1
LIMIT_BYTES = 4 << 20
Lacking = Literal["error", "missing", "not_computed"]
_FIELD = re.compile(r"\{(layer|case|step)(?::0([1-9]))?\}")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where one kind of tensor comes from; the steps are applied in the order of the fields.

    ``split`` and ``part`` cut the last axis of the dump's tensor, ``axes`` name the axes of
    what is left (sizes multiply with ``*``), ``crop`` cuts axes down to the golden's size,
    ``plus`` is a second tensor that is added, ``dtype`` is what the engine computed in.
    """

    golden: str
    dump: str
    split: tuple[str, ...] = ()
    part: int = 0
    axes: tuple[str, ...] | None = None
    crop: tuple[str, ...] = ()
    plus: str | None = None
    dtype: str | None = None


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
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            message = f"{path}: larger than {LIMIT_BYTES} bytes, not a name map"
            raise UsageError(message)
        text = data.decode("utf-8")
        raw = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
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


def fields_of(info: TensorInfo) -> dict[str, str | int]:
    """Return what a pattern's fields stand for in one of the golden's tensors."""
    parts = info.sublayer.split(".")
    layer = int(parts[1]) if parts[0] == "layers" and len(parts) > 1 else 0
    return {"layer": layer, "case": info.case, "step": int(info.step or 0)}


def matches(pattern: str, info: TensorInfo) -> bool:
    """Tell whether a golden pattern means this tensor: ``layers.{layer}.mlp.output``.

    It is held against the dotted name, or against the full one where it has a ``/``.
    """
    name = info.name if "/" in pattern else dotted_name(info.name)
    body, end = "", 0
    for field in _FIELD.finditer(pattern):
        body += re.escape(pattern[end : field.start()])
        body += r"\d+" if field[1] != "case" else "[^/]+"
        end = field.end()
    return re.fullmatch(body + re.escape(pattern[end:]), name) is not None


def fill(pattern: str, info: TensorInfo) -> str:
    """Return the dump's name for one of the golden's tensors."""
    values = fields_of(info)

    def value(field: re.Match[str]) -> str:
        found = values[field[1]]
        return f"{found:0{field[2]}d}" if field[2] and isinstance(found, int) else str(found)

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
    lines = [f"map_version = {mapping.map_version}", f"engine = {_quote(mapping.engine)}"]
    lines += [f"mode = {_quote(mapping.mode)}", f"lacking = {_quote(mapping.lacking)}"]
    if mapping.not_computed:
        lines.append(f"not_computed = {_list(mapping.not_computed)}")
    for entry in mapping.tensor:
        lines += ["", "[[tensor]]"]
        for key, value in msgspec.to_builtins(entry).items():
            shown = _list(value) if isinstance(value, list | tuple) else value
            lines.append(f"{key} = {_quote(shown) if isinstance(value, str) else shown}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return json.dumps(text)


def _list(values: object) -> str:
    assert isinstance(values, list | tuple)
    return f"[{', '.join(map(_quote, values))}]"


def _problem(mapping: NameMap) -> str:
    if mapping.map_version != MAP_VERSION:
        return f"map_version is {mapping.map_version}, expected {MAP_VERSION}"
    for number, entry in enumerate(mapping.tensor, start=1):
        if problem := _entry_problem(entry):
            return f"tensor {number} ({entry.golden}): {problem}"
    return "" if mapping.tensor else "it maps no tensor: expected tables [[tensor]]"


def _entry_problem(entry: Entry) -> str:
    for pattern in (entry.golden, entry.dump, entry.plus or ""):
        rest = _FIELD.sub("", pattern)
        if "{" in rest or "}" in rest:
            return f"{pattern!r} has a field other than {{layer}}, {{case}}, {{step}}"
    for axis in (*entry.split, *(entry.axes or ()), *entry.crop):
        if not all(re.fullmatch(r"[a-z_]+|\d{1,9}", term.strip()) for term in axis.split("*")):
            return f"axis {axis!r} is not a product of dimension names, such as head*head_dim"
    if entry.split and not 0 <= entry.part < len(entry.split):
        return f"part {entry.part} is not one of the {len(entry.split)} of split"
    if entry.part and not entry.split:
        return "part needs split"
    if entry.dtype is not None and entry.dtype not in FLOAT_DTYPES:
        return f"dtype {entry.dtype!r} is not one of {', '.join(FLOAT_DTYPES)}"
    return ""
