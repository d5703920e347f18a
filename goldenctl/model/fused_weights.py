"""Modules that a family stores as one, taken apart: a ``qkv_proj`` holds the rows of q, k and v.

Behind ``Checkpoint`` there are the parts alone, each where its rows lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from goldenctl.errors import DamagedError
from goldenctl.families import FAMILIES
from goldenctl.graph.config import ModelConfig
from goldenctl.model.names import parameter_shapes
from goldenctl.model.safetensors_header import DTYPE_OF_TAG, Entry
from goldenctl.model.shards import WeightFiles

_MODULE = re.compile(r"(?P<before>(?:.*\.)?layers\.\d+\.)(?P<module>.+)\.(?P<kind>weight|bias)")


def taken_apart(files: WeightFiles, config: ModelConfig) -> WeightFiles:
    """Return the files with the parts of each fused tensor in its place.

    Raises DamagedError for a fused tensor whose rows are not those of its parts.
    """
    if not FAMILIES[config.model_type].fused:
        return files
    headers = {
        path: {n: e for name, entry in h.items() for n, e in _parts(path, name, entry, config)}
        for path, h in files.headers.items()
    }
    return replace(files, headers=headers)


def _parts(path: Path, name: str, entry: Entry, config: ModelConfig) -> Iterator[tuple[str, Entry]]:
    found = _MODULE.fullmatch(name)
    parts = FAMILIES[config.model_type].fused.get(found["module"], ()) if found else ()
    if found is None or not parts or entry.tag not in DTYPE_OF_TAG or not entry.shape:
        yield name, entry
        return
    shapes = parameter_shapes(config)
    rows = [shapes[f"model.layers.0.{part}.weight"][0] for part in parts]
    if entry.shape[0] != sum(rows):
        message = (
            f"{path}: {name} has {entry.shape[0]} rows, expected {sum(rows)}, those of "
            f"{', '.join(parts)}"
        )
        raise DamagedError(message)
    offset, row_bytes = entry.offset, entry.size_bytes // entry.shape[0]
    for part, count in zip(parts, rows, strict=True):
        shape = (count, *entry.shape[1:])
        size = count * row_bytes
        yield f"{found['before']}{part}.{found['kind']}", Entry(entry.tag, shape, offset, size)
        offset += size


def stored_parts(config: ModelConfig) -> dict[str, list[str]]:
    """Return the names under which a model's parameters are stored, each with the parameters
    whose rows it holds, in execution order."""
    whole = {
        part: module
        for module, parts in FAMILIES[config.model_type].fused.items()
        for part in parts
    }
    stored: dict[str, list[str]] = {}
    for name in parameter_shapes(config):
        found = _MODULE.fullmatch(name)
        module = whole.get(found["module"]) if found else None
        where = f"{found['before']}{module}.{found['kind']}" if found and module else name
        stored.setdefault(where, []).append(name)
    return stored


def stored_shape(shapes: Mapping[str, tuple[int, ...]], parts: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of a stored tensor that holds the rows of ``parts``."""
    first = shapes[parts[0]]
    return (sum(shapes[part][0] for part in parts), *first[1:])
