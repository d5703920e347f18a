"""Quantised checkpoints: a folder in the cache that holds the same model in float32.

The reference, and every engine that goldenctl feeds, computes with these weights; so the
rounding budget is that of the dequantised model, and an engine that keeps its weights quantised
is judged by what it computes, not by what quantising lost.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from goldenctl.atomic import whole_folder
from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, UsageError
from goldenctl.folders import cache_folder, made_once
from goldenctl.model.dequantise import Parts, Scheme, scheme_of
from goldenctl.model.fields import show
from goldenctl.model.jsonfile import read_object
from goldenctl.model.safetensors_header import Entry
from goldenctl.model.safetensors_write import write_checkpoint
from goldenctl.model.shards import weight_files

MADE_OF = "dequantised.json"
_VERSION = 1  # a change of what is made, or how, makes all folders again
_ROWS = 4096
_NUMPY = {
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
}
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Weight:
    """A tensor to write: its shape, and what makes its values, float32 in that shape."""

    shape: tuple[int, ...]
    values: Callable[[], NDArray[Any]]


def scheme_in(folder: Path) -> str:
    """Return how the model was quantised that a folder of the cache was made of; or nothing."""
    made_of = folder / MADE_OF
    return str(read_object(made_of).get("scheme", "")) if made_of.is_file() else ""


def dequantised(folder: Path, notify: Notify) -> Path:
    """Return ``folder``, or where its weights are quantised one with the same in float32.

    Raises UsageError for a scheme that is not supported, DamagedError for weights that do not
    fit it.
    """
    path = folder / "config.json"
    config = read_object(path) if path.is_file() else {}
    said = config.get("quantization_config")
    if said is None:
        return folder
    if not isinstance(said, dict):
        message = f"{path}: quantization_config {show(said)} is not an object"
        raise DamagedError(message)
    scheme = scheme_of(said, str(path))
    files = weight_files(folder).headers
    del config["quantization_config"]
    with _Files(files) as opened:
        return floats_folder(
            [path, *files],
            folder,
            scheme.title,
            lambda: (config, _weights(opened, scheme), _beside(folder)),
            notify,
        )


Made = tuple[Mapping[str, Any], Mapping[str, Weight], Mapping[str, bytes]]


def floats_folder(
    files: list[Path], source: Path, scheme: str, make: Callable[[], Made], notify: Notify
) -> Path:
    """Return the folder of the cache with what ``make`` gives: config, weights, further files.

    It is made once for the ``files`` of ``source`` as they are now.
    """
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    key = hashlib.sha256(repr((_VERSION, stats)).encode()).hexdigest()[:16]
    out = cache_folder() / "dequantised" / f"{source.resolve().stem}-{key}"

    def make_folder() -> None:
        notify(f"dequantising {source} ({scheme}) into {out}")
        made = make()
        with whole_folder(out) as folder:
            write_floats(folder, made)
            made_of = {"scheme": scheme, "source": str(source.resolve())}
            (folder / MADE_OF).write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")

    return made_once(out, str(source), make_folder)


def write_floats(folder: Path, made: Made) -> None:
    """Write a model in float32 into ``folder``; OSError as it comes."""
    config, weights, beside = made

    def chunks(name: str) -> Iterator[NDArray[np.generic]]:
        values = weights[name].values()
        for start in range(0, max(len(values), 1), _ROWS) if values.ndim else [0]:
            rows = values[start : start + _ROWS] if values.ndim else values
            yield np.ascontiguousarray(rows, np.float32).reshape(-1)

    shapes = {name: weight.shape for name, weight in weights.items()}
    write_checkpoint(folder, shapes, DTYPES["float32"], chunks)
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name, data in beside.items():
        (folder / name).write_bytes(data)


def _beside(folder: Path) -> dict[str, bytes]:
    """The small files of a checkpoint that say how text becomes tokens."""
    names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


class _Files:
    """The tensors of a checkpoint's files by name, as arrays over their mapped bytes."""

    def __init__(self, headers: Mapping[Path, Mapping[str, Entry]]) -> None:
        self.place = {name: (path, e) for path, of in headers.items() for name, e in of.items()}
        self._maps: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()  # a map is closed with the last array over it

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor; UsageError for a type that no weight has."""
        path, entry = self.place[name]
        kind = _NUMPY.get(entry.tag)
        if kind is None:
            message = f"{path}: tensor {show(name)} has dtype {entry.tag}, which is not supported"
            raise UsageError(message)
        count = math.prod(entry.shape)
        if path not in self._maps:
            with path.open("rb") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if count == 0:
            return np.empty(entry.shape, kind)
        return np.frombuffer(self._maps[path], kind, count, entry.offset).reshape(entry.shape)


def _weights(files: _Files, scheme: Scheme) -> dict[str, Weight]:
    """Every tensor of the float model: those of quantised layers are made, others taken."""
    ends = (scheme.weight, *scheme.parts)
    layers: dict[str, dict[str, str]] = {}
    for name in files.place:
        stem, _, end = name.rpartition(".")
        if end in ends:
            layers.setdefault(stem, {})[end] = name
    made: dict[str, Weight] = {}
    for name in files.place:
        stem, _, end = name.rpartition(".")
        layer = layers.get(stem, {})
        if scheme.weight not in layer or not layer.keys() & set(scheme.parts):
            made[name] = _as_it_is(files, name)
        elif end == scheme.weight:
            made[f"{stem}.weight"] = _layer(files, scheme, stem, layer)
        elif end not in ends:  # such as its bias
            made[name] = _as_it_is(files, name)
    return made


def _as_it_is(files: _Files, name: str) -> Weight:
    _, entry = files.place[name]
    return Weight(entry.shape, lambda: files.array(name))


def _layer(files: _Files, scheme: Scheme, stem: str, layer: Mapping[str, str]) -> Weight:
    def parts() -> Parts:
        return Parts(stem, {end: files.array(name) for end, name in layer.items()})

    if parts()[scheme.weight].ndim != 2:
        parts().fail(f"{stem}.{scheme.weight} is not a matrix")
    return Weight(scheme.shape(parts()), lambda: scheme.values(parts()))
