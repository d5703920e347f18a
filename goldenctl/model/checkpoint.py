"""Owns access to a checkpoint's weights: where each one lies, and a read-only view of its bytes."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.golden.dtypes import DTYPES
from goldenctl.model.config import ModelConfig, load_config
from goldenctl.model.fields import show
from goldenctl.model.fingerprint import fingerprint
from goldenctl.model.jsonfile import read_object
from goldenctl.model.names import EMBEDDING, LM_HEAD, parameter_shapes
from goldenctl.model.safetensors_header import Entry, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPE_OF_TAG = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
LISTED_PROBLEMS = 3
# A layer's tensors, but for the frequencies that older checkpoints hold and nothing reads.
_OF_LAYER = re.compile(r"model\.layers\.(?!\d+\.self_attn\.rotary_emb\.inv_freq$)")


@dataclass(frozen=True)
class WeightRef:
    """Where a weight lies: ``offset`` is the byte in ``path``; row-major, little-endian."""

    path: Path
    offset: int
    dtype: str  # bfloat16, float16 or float32
    shape: tuple[int, ...]


class Checkpoint:
    """The weights of a Hugging Face layout folder; nothing is read until it is mapped."""

    def __init__(
        self, folder: Path, config: ModelConfig, files: dict[Path, dict[str, Entry]]
    ) -> None:
        self.folder = folder
        self.config = config
        self.files = files
        self._place = {name: path for path, entries in files.items() for name in entries}
        self._maps: dict[Path, mmap.mmap] = {}

    @staticmethod
    def open(folder: str | Path) -> Checkpoint:
        """Read the config and every safetensors header of ``folder``.

        Raises MissingError when something is not there, DamagedError when a file is
        malformed or the index does not fit its shards, UsageError when the config is not
        supported.
        """
        folder = Path(folder)
        if not folder.is_dir():
            message = f"{folder}: there is no such folder"
            raise MissingError(message, hint="a checkpoint has config.json and *.safetensors")
        config = load_config(folder)
        return Checkpoint(folder, config, _read_files(folder))

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def names(self) -> tuple[str, ...]:
        """Return every tensor's name, also of those that no forward pass reads."""
        return tuple(self._place)

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def tensor(self, name: str) -> WeightRef:
        """Return where ``name`` lies.

        Raises DamagedError when the checkpoint has no such tensor and UsageError when its
        dtype is not one that goldenctl computes in (quantized weights).
        """
        path, entry = self._entry(name)
        if entry.tag not in DTYPE_OF_TAG:
            message = f"{path}: tensor {show(name)} has dtype {entry.tag}, which is not supported"
            raise UsageError(message, hint=f"supported are {', '.join(DTYPE_OF_TAG.values())}")
        return WeightRef(path, entry.offset, DTYPE_OF_TAG[entry.tag], entry.shape)

    def map(self, name: str) -> NDArray[np.generic]:
        """Return a read-only view of the bytes of ``name`` in the file, typed and shaped.

        It stays valid after ``drop`` and ``close``; the file must not shrink meanwhile.
        """
        ref = self.tensor(name)
        count = int(np.prod(ref.shape, dtype=np.int64))
        numpy_dtype = DTYPES[ref.dtype].numpy
        if count == 0:
            return np.empty(ref.shape, numpy_dtype)
        flat = np.frombuffer(self._map(ref.path), numpy_dtype, count, ref.offset)
        return flat.reshape(ref.shape)

    def drop(self, name: str) -> None:
        """Let the pages of ``name`` leave this process's memory; they are read again on use."""
        path, entry = self._entry(name)
        mapped = self._maps.get(path)
        if mapped is None or entry.size_bytes == 0 or not hasattr(mapped, "madvise"):
            return
        start = entry.offset // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, start, entry.offset + entry.size_bytes - start)

    def close(self) -> None:
        """Unmap the files; a file whose views are still in use is unmapped with the last one."""
        for mapped in self._maps.values():
            try:
                mapped.close()
            except BufferError:
                mapped.madvise(mmap.MADV_DONTNEED)
        self._maps.clear()

    def fingerprint(self) -> str:
        """Return ``sha256:...`` of the config and of every tensor's name, dtype, shape and bytes.

        How the tensors are spread over files does not matter. Digests of unchanged files
        are taken from the user's cache.
        """
        return fingerprint(self.config, self.files)

    def check_against(self, config: ModelConfig) -> tuple[str, ...]:
        """Check that every weight ``config`` needs is there; return the names it does not use.

        Raises DamagedError naming the missing or misshapen tensors, and UsageError for a layer's
        tensor that the model of ``config`` does not have (another architecture, or fewer layers),
        and when embeddings are tied but ``lm_head.weight`` is there with other values:
        transformers 4 ignores it, transformers 5 uses it.
        """
        expected = parameter_shapes(config)
        problems = [p for name, shape in expected.items() if (p := self._problem(name, shape))]
        if problems:
            listed = "; ".join(problems[:LISTED_PROBLEMS])
            more = len(problems) - LISTED_PROBLEMS
            tail = f"; and {more} more" if more > 0 else ""
            message = f"{self.folder}: the weights do not fit config.json: {listed}{tail}"
            raise DamagedError(message)
        for name in expected:
            self.tensor(name)  # refuses its dtype
        if config.tie_word_embeddings and LM_HEAD in self and not self._same(EMBEDDING, LM_HEAD):
            message = (
                f"{self.folder}: config.json ties the embeddings, but {LM_HEAD} differs from "
                f"{EMBEDDING}"
            )
            hint = "set tie_word_embeddings to false, or remove the tensor"
            raise UsageError(message, hint=hint)
        unused = tuple(name for name in self._place if name not in expected)
        _refuse_of_layers(self.folder, [name for name in unused if _OF_LAYER.match(name)])
        return unused

    def _problem(self, name: str, shape: tuple[int, ...]) -> str:
        if name not in self:
            return f"{name} {list(shape)} is missing"
        actual = self._entry(name)[1].shape
        return "" if actual == shape else f"{name} is {list(actual)}, expected {list(shape)}"

    def _same(self, first: str, second: str) -> bool:
        a, b = self.map(first), self.map(second)
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        same = all(
            x.tobytes() == y.tobytes()
            for start in range(0, len(a), 4096)
            for x, y in [(a[start : start + 4096], b[start : start + 4096])]
        )
        self.drop(first)
        self.drop(second)
        return same

    def _entry(self, name: str) -> tuple[Path, Entry]:
        if name not in self._place:
            message = f"{self.folder}: there is no tensor {show(name)}"
            raise DamagedError(message)
        path = self._place[name]
        return path, self.files[path][name]

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            ends = max(e.offset + e.size_bytes for e in self.files[path].values())
            if len(mapped) != ends:
                message = f"{path}: has {len(mapped)} bytes, {ends} when it was opened"
                raise DamagedError(message, hint="the file is being changed")
            self._maps[path] = mapped
        return self._maps[path]


def _refuse_of_layers(folder: Path, names: Sequence[str]) -> None:
    """Raise UsageError for tensors that would be left out of the arithmetic without a word."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        message = (
            f"{folder}: {names[0]}{more} is in the weights, but not in the model of config.json"
        )
        raise UsageError(message, hint="it computes something else, or has fewer layers")


def _read_files(folder: Path) -> dict[Path, dict[str, Entry]]:
    """Return the tensors of each file, choosing files in the order transformers does."""
    single = folder / SINGLE
    if single.is_file():
        return {single: read_header(single)}
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    found = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if len(found) == 1:
        return {found[0]: read_header(found[0])}
    if found:
        message = f"{folder}: has {len(found)} *.safetensors files but no {INDEX}"
        raise MissingError(message)
    message = f"{folder}: there is no *.safetensors file"
    raise MissingError(message, hint="weights in other formats have to be converted first")


def _read_shards(folder: Path) -> dict[Path, dict[str, Entry]]:
    index = folder / INDEX
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        message = f"{index}: expected an object weight_map"
        raise DamagedError(message)
    files: dict[Path, dict[str, Entry]] = {}
    for shard in dict.fromkeys(_shard_name(value, index) for value in weight_map.values()):
        files[folder / shard] = read_header(folder / shard)
    for path, entries in files.items():
        claimed = {name for name, shard in weight_map.items() if shard == path.name}
        if claimed != entries.keys():
            odd = min(claimed ^ entries.keys())
            where = "is not in that file" if odd in claimed else "is in that file only"
            _fail_index(index, f"says otherwise than {path.name}: tensor {show(odd)} {where}")
    return files


def _shard_name(value: object, index: Path) -> str:
    if not isinstance(value, str) or not value.endswith(".safetensors"):
        _fail_index(index, f"{show(value)} is not the name of a safetensors file")
    if "/" in value or "\\" in value or not value.isprintable():
        _fail_index(index, f"{show(value)} is a path, expected a file name in the same folder")
    return value


def _fail_index(index: Path, problem: str) -> NoReturn:
    message = f"{index}: {problem}"
    raise DamagedError(message)
