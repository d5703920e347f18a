"""Which files of a folder hold a checkpoint's weights, and what each of them holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from goldenctl.errors import DamagedError, MissingError
from goldenctl.model.fields import show
from goldenctl.model.jsonfile import read_object
from goldenctl.model.safetensors_header import Entry, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_LISTED = 3


@dataclass(frozen=True)
class WeightFiles:
    """The headers of the files by path; ``absent`` are shards that the index names and that
    are not there, ``misplaced`` counts tensors that are not where it says."""

    headers: dict[Path, dict[str, Entry]]
    absent: tuple[Path, ...] = ()
    misplaced: int = 0


def weight_files(folder: Path) -> WeightFiles:
    """Return the tensors of each file, choosing files in the order transformers does.

    Raises MissingError when there are none, DamagedError for an index that names anything but
    safetensors files inside the folder, and for a malformed file.
    """
    single = folder / SINGLE
    if single.is_file():
        return WeightFiles({single: read_header(single)})
    if (folder / INDEX).is_file():
        return _indexed(folder)
    found = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if len(found) == 1 or _is_whole_series(found):
        return WeightFiles({path: read_header(path) for path in found})
    if found:
        names = ", ".join(path.name for path in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        message = f"{folder}: has {len(found)} *.safetensors files but no {INDEX}: {names}{more}"
        raise MissingError(message, hint="they are no whole series such as model-00001-of-00002")
    message = f"{folder}: there is no *.safetensors file"
    raise MissingError(message, hint="weights in other formats have to be converted first")


def _is_whole_series(found: list[Path]) -> bool:
    """Whether the files are every part of one model, by their own names."""
    parts = [_NUMBERED.fullmatch(path.name) for path in found]
    if not parts or not all(parts):
        return False
    said = [(part[1], int(part[3]), int(part[2])) for part in parts if part]
    stem, count, _ = said[0]
    return said == [(stem, count, number) for number in range(1, count + 1)]


def _indexed(folder: Path) -> WeightFiles:
    """Read the shards that the index names. As in transformers, what they hold counts, not
    where the index says that it is."""
    index = folder / INDEX
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        _fail(index, "expected an object weight_map")
    paths = {name: folder / _inside(value, index) for name, value in weight_map.items()}
    ordered = sorted(set(paths.values()))
    headers = {path: read_header(path) for path in ordered if path.is_file()}
    misplaced = sum(name not in headers.get(path, ()) for name, path in paths.items())
    absent = tuple(path for path in ordered if path not in headers)
    return WeightFiles(headers, absent, misplaced)


def _inside(value: object, index: Path) -> PurePosixPath:
    """Return a shard's path below the folder; it may lie in a subfolder, never outside."""
    if not isinstance(value, str) or not value.endswith(".safetensors"):
        _fail(index, f"{show(value)} is not the name of a safetensors file")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or not value.isprintable():
        _fail(index, f"{show(value)} is a path that may lead out of the folder")
    return path


def _fail(index: Path, problem: str) -> NoReturn:
    message = f"{index}: {problem}"
    raise DamagedError(message)
