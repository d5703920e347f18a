"""The files of one test's golden tensors: values in ``.h5``, sketches in ``.json``.

A ``.h5`` is a golden like any other (docs/file-format.md): ``goldenctl inspect`` shows it. Its
recipe keeps the types and shapes that the test had, where a golden holds a wider or flatter one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from goldenctl import digests
from goldenctl.atomic import cannot_write, write_whole
from goldenctl.digests import Digest, modern
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.sketch import Sketch, sketch_of
from goldenctl.golden.times import times_path
from goldenctl.golden.writer import GoldenWriter
from goldenctl.pytest_plugin.arrays import Array
from goldenctl.sets.manifest import Name, Shape

_FORMAT = "goldenctl-sketches"
_LIMIT_BYTES = 64 << 20
_FOLDER = "tensors"


@dataclass(frozen=True)
class Stored:
    """What is kept of a tensor: its type and shape in the test, and its values or, where
    ``values`` is None, their digest and, of floats, their sketch."""

    dtype: str
    shape: tuple[int, ...]
    digest: str
    values: Array | None = None
    sketch: Sketch | None = None


class _Sketched(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    name: Name
    dtype: Annotated[str, msgspec.Meta(max_length=64)]
    shape: Shape
    digest: Digest
    sketch: Sketch | None = None


class _SketchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Annotated[str, msgspec.Meta(pattern=f"^{_FORMAT}$")] = _FORMAT
    format_version: Annotated[int, msgspec.Meta(ge=1, le=2)] = 2  # the first says sha256
    tensors: tuple[_Sketched, ...]


class _Original(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Annotated[str, msgspec.Meta(max_length=64)]
    shape: Shape


def digest(array: Array) -> str:
    return digests.of_bytes(_bytes(array))


def is_of(array: Array, digest: str) -> bool:
    """Whether a digest, of whatever algorithm, is that of an array."""
    return digests.matches(digest, _bytes(array))


def _bytes(array: Array) -> memoryview:
    flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return flat


def with_suffix(path: Path, suffix: str) -> Path:
    """Test names have dots: a suffix is appended, never replaced."""
    return path.with_name(path.name + suffix)


def load(path: Path, *, skip_damaged: bool = False) -> dict[str, Stored]:
    """Return what is kept of each tensor; nothing when there are no files.

    Raises DamagedError naming the file that cannot be read, unless it is to be skipped.
    """
    stored: dict[str, Stored] = {}
    for suffix, read in ((".h5", _load_values), (".json", _load_sketches)):
        file = with_suffix(path, suffix)
        try:
            stored.update(read(file) if file.exists() else {})
        except DamagedError:
            if not skip_damaged:
                raise
    return stored


def save(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Write both files whole, or remove the one that nothing is in any more.

    Raises UsageError with the system's reason; what stood there is then untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    values = {name: kept for name, kept in sorted(tensors.items()) if kept.values is not None}
    sketches = {name: kept for name, kept in sorted(tensors.items()) if kept.values is None}
    for suffix, part, write in (
        (".h5", values, _save_values),
        (".json", sketches, _save_sketches),
    ):
        file = with_suffix(path, suffix)
        if part:
            write(file, part)
        else:
            file.unlink(missing_ok=True)


def kept_values(array: Array, original: Array) -> Stored:
    """Keep all values, copied."""
    return Stored(original.dtype.name, original.shape, digest(array), values=array.copy())


def kept_sketch(array: Array, original: Array) -> Stored:
    """Keep the digest and, of floats, a sketch."""
    sketch = sketch_of(array) if array.dtype.kind not in "iu" else None
    return Stored(original.dtype.name, original.shape, digest(array), sketch=sketch)


def _load_values(path: Path) -> dict[str, Stored]:
    file = open_golden(path, kind="golden")
    try:
        originals = msgspec.convert(file.recipe.get("tensors"), dict[str, _Original])
    except msgspec.ValidationError as error:
        message = f"{path}: not the golden of a test: {error}"
        raise DamagedError(message) from error
    if {f"{_FOLDER}/{name}" for name in originals} != set(file.tensors):
        message = f"{path}: its recipe does not name its tensors"
        raise DamagedError(message)
    return {name: _stored(file, name, original) for name, original in originals.items()}


def _stored(file: GoldenFile, name: str, original: _Original) -> Stored:
    info = file.info(f"{_FOLDER}/{name}")
    values = np.array(file.map(info.name))  # the file may be written again
    if not is_of(values, info.digest):
        message = f"{file.path}: {name} does not match its digest"
        raise DamagedError(message)
    try:
        values = values.reshape(original.shape)
    except ValueError as error:
        message = f"{file.path}: {name} is of shape {info.shape}, its recipe says {original.shape}"
        raise DamagedError(message) from error
    return Stored(original.dtype, original.shape, digest(values), values=values)


def _save_values(path: Path, tensors: Mapping[str, Stored]) -> None:
    arrays = {
        f"{_FOLDER}/{name}": np.atleast_1d(kept.values)
        for name, kept in tensors.items()
        if kept.values is not None
    }
    specs = [
        TensorSpec(
            name,
            array.dtype.name,
            array.shape,
            tuple(f"dim{axis}" for axis in range(array.ndim)),
            "output",
        )
        for name, array in arrays.items()
    ]
    recipe: dict[str, Any] = {
        "tensors": {n: {"dtype": k.dtype, "shape": list(k.shape)} for n, k in tensors.items()}
    }
    with GoldenWriter(
        path, kind="golden", recipe=recipe, tensors=specs, links={}, groups=[]
    ) as writer:
        for name, array in arrays.items():
            writer.write(name, memoryview(np.ascontiguousarray(array).tobytes()))
        writer.seal()
    times_path(path).unlink(missing_ok=True)  # the same values are the same files


def _load_sketches(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            said = msgspec.json.decode(file.read(_LIMIT_BYTES))
        content = msgspec.convert(modern(said), _SketchFile)
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
        message = f"{path}: not the sketches of a test: {error}"
        raise DamagedError(message) from error
    digests.require_known((each.digest for each in content.tensors), str(path), "")
    return {
        each.name: Stored(each.dtype, each.shape, each.digest, sketch=each.sketch)
        for each in content.tensors
    }


def _save_sketches(path: Path, tensors: Mapping[str, Stored]) -> None:
    entries = tuple(
        _Sketched(
            name=name, dtype=kept.dtype, shape=kept.shape, digest=kept.digest, sketch=kept.sketch
        )
        for name, kept in tensors.items()
    )
    data = msgspec.json.encode(_SketchFile(tensors=entries), order="sorted")
    write_whole(path, msgspec.json.format(data, indent=1) + b"\n")
