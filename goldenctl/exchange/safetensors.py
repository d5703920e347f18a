"""Goldens as safetensors: every type kept, provenance and catalog in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from goldenctl.dtypes import DTYPES
from goldenctl.exchange import catalog as catalogs
from goldenctl.exchange.catalog import Catalog, Tensor
from goldenctl.golden.file import GoldenFile

CATALOG = "goldenctl.catalog"
TAGS = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int32": "I32",
    "int64": "I64",
}
_ALIGNMENT_BYTES = 64
Progress = Callable[[int, int, str], None]


def write_safetensors(
    path: Path, file: GoldenFile, catalog: Catalog, *, progress: Progress = lambda *_: None
) -> None:
    """Write the tensors of ``catalog`` from ``file``, the widest types first, as the format's
    own writer orders them, so that each is aligned; OSError as it comes."""
    tensors = sorted(catalog.tensors, key=lambda t: -DTYPES[t.dtype].itemsize)
    done = 0
    with path.open("wb") as out:
        out.write(_header(tensors, catalog))
        for tensor in tensors:
            progress(done, catalog.nbytes, tensor.name)
            out.write(file.verify(tensor.name).reshape(-1).view(np.uint8).data)
            done += tensor.spec.nbytes


def metadata(catalog: Catalog) -> dict[str, str]:
    """Return what any reader of the metadata sees first, then the whole catalog."""
    recipe = catalog.recipe
    model = recipe.get("model")
    return {
        "format": "pt",
        "goldenctl.kind": catalog.kind,
        "goldenctl.tool_version": catalog.tool_version,
        "goldenctl.created_utc": catalog.created_utc,
        "goldenctl.source_content_digest": catalog.source_content_digest,
        "goldenctl.model": str(model.get("fingerprint", "")) if isinstance(model, dict) else "",
        CATALOG: catalogs.encode(catalog).decode(),
    }


def _header(tensors: list[Tensor], catalog: Catalog) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata(catalog)}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.spec.nbytes
        header[tensor.name] = {
            "dtype": TAGS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-(len(data) + 8) % _ALIGNMENT_BYTES)
    return len(data).to_bytes(8, "little") + data
