"""A writer of safetensors files, one chunk of one tensor at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DType

SHARD_BYTES = 512 << 20
ALIGNMENT_BYTES = 64
TAGS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

Chunks = Iterator[NDArray[np.generic]]
Shapes = Mapping[str, tuple[int, ...]]


def write_checkpoint(
    folder: Path,
    shapes: Shapes,
    dtype: DType,
    chunks: Callable[[str], Chunks],
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write every tensor of ``shapes`` into ``folder``: one file, or shards with an index.

    ``chunks(name)`` yields the tensor's values, flat and in order. A shard ends before the
    tensor that would take it above SHARD_BYTES.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    shards = _shards(sizes)
    total = sum(sizes.values())
    done = 0
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards, start=1):
        file_name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        file_name = "model.safetensors" if len(shards) == 1 else file_name
        weight_map |= dict.fromkeys(names, file_name)
        with (folder / file_name).open("xb") as file:
            file.write(header_bytes({name: (dtype.name, shapes[name]) for name in names}))
            for name in names:
                for chunk in chunks(name):
                    file.write(chunk.view(np.uint8).data)
                done += sizes[name]
                if progress is not None:
                    progress(name, done, total)
            file.flush()
            os.fsync(file.fileno())
    if len(shards) > 1:
        index_json = {"metadata": {"total_size": total}, "weight_map": weight_map}
        text = json.dumps(index_json, indent=1) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the length and JSON header of a file with these (dtype, shape), in this order.

    Padded with spaces, as the format allows, so that the data starts at ALIGNMENT_BYTES.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * (2 if dtype != "float32" else 4)
        header[name] = {"dtype": TAGS[dtype], "shape": list(shape), "data_offsets": [start, end]}
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-(len(data) + 8) % ALIGNMENT_BYTES)
    return len(data).to_bytes(8, "little") + data


def _shards(sizes: Mapping[str, int]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size
    return shards
