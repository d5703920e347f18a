"""A checkpoint's weights by canonical name: where each one lies, a read-only view of its bytes."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from goldenctl.dtypes import DTYPES
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.model.config import ModelConfig, load_config
from goldenctl.model.fields import show
from goldenctl.model.fingerprint import fingerprint
from goldenctl.model.fit import fit, listed, misfit
from goldenctl.model.fused_weights import taken_apart
from goldenctl.model.names import EMBEDDING, LM_HEAD, parameter_shapes
from goldenctl.model.safetensors_header import DTYPE_OF_TAG, Entry
from goldenctl.model.shards import INDEX, WeightFiles, weight_files
from goldenctl.model.weight_names import canonical_names, grouped, other_name


@dataclass(frozen=True)
class WeightRef:
    """Where a weight lies: ``offset`` is the byte in ``path``; row-major, little-endian."""

    path: Path
    offset: int
    dtype: str  # bfloat16, float16, float32 or float64
    shape: tuple[int, ...]


class Checkpoint:
    """The weights of a Hugging Face layout folder; nothing is read until it is mapped.

    Names are canonical, whatever the files call a tensor; ``renamed`` says which of them call
    it otherwise. ``config`` is that of the folder; where it ties the embeddings to a head that is
    stored with other values, they are ``untied`` and it says so, as transformers 5 does.
    """

    def __init__(self, folder: Path, config: ModelConfig, files: WeightFiles) -> None:
        self.folder = folder
        self.config = config
        self.files = files
        self.untied = False
        stored = {
            name: e.shape for entries in files.headers.values() for name, e in entries.items()
        }
        self.renamed = canonical_names(stored, config)
        self._place: dict[str, tuple[Path, str]] = {}  # of each name: the file, its name there
        self._maps: dict[Path, mmap.mmap] = {}
        for path, entries in files.headers.items():
            for name in entries:
                self._add(path, name)

    @staticmethod
    def open(folder: str | Path) -> Checkpoint:
        """Read the config and every safetensors header of ``folder``.

        Raises MissingError when something is not there, DamagedError when a file is
        malformed or two files disagree on a tensor, UsageError when the config is not
        supported.
        """
        folder = Path(folder)
        if not folder.is_dir():
            message = f"{folder}: there is no such folder"
            raise MissingError(message, hint="a checkpoint has config.json and *.safetensors")
        config = load_config(folder)
        checkpoint = Checkpoint(folder, config, taken_apart(weight_files(folder), config))
        checkpoint._require_shards()
        checkpoint._untie()
        return checkpoint

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

    def entry(self, name: str) -> Entry:
        """Return what a file's header says of ``name``; DamagedError when it is not there."""
        return self._find(name)[1]

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def tensor(self, name: str) -> WeightRef:
        """Return where ``name`` lies.

        Raises DamagedError when the checkpoint has no such tensor and UsageError when its
        dtype is not one that goldenctl computes in (quantized weights).
        """
        path, entry = self._find(name)
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
        path, entry = self._find(name)
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

        How the tensors are spread over files does not matter, nor what the files call them.
        Digests of unchanged files are taken from the user's cache.
        """
        return fingerprint(self.config, self.files.headers, self.renamed)

    def check_against(
        self, config: ModelConfig, *, read: Iterable[str] | None = None, verbose: bool = False
    ) -> tuple[str, ...]:
        """Check that the weights are there; return the names that the model does not have.

        All parameters of ``config`` have to be there, or those in ``read``. Raises DamagedError
        for what is missing or misshapen, UsageError for dtypes that are not supported, both
        with all that is wrong (``verbose``) or the first of it. UsageError, too, when a
        parameter is there twice with other values.
        """
        found = fit({name: self.entry(name) for name in self._place}, config, read)
        if error := misfit(found, str(self.folder), verbose=verbose):
            raise error
        self._refuse_twice(config)
        return found.unread

    def _refuse_twice(self, config: ModelConfig) -> None:
        """Raise UsageError when a parameter has two values under two names that it may have."""
        for name in parameter_shapes(config):
            other = other_name(name)
            if name in self and other in self and not self._same_values(name, other):
                message = f"{self.folder}: {other} differs from {name}, and both name one parameter"
                raise UsageError(message, hint="transformers takes either; remove one of them")

    def _untie(self) -> None:
        """Take a stored head that differs from the embeddings for what it is."""
        both = [name for name in (EMBEDDING, LM_HEAD) if name in self]
        known = all(self.entry(name).tag in DTYPE_OF_TAG for name in both)
        if self.config.tie_word_embeddings and len(both) == 2 and known:
            self.untied = not self._same_values(EMBEDDING, LM_HEAD)
        if self.untied:
            self.config = replace(self.config, tie_word_embeddings=False)

    def _same_values(self, first: str, second: str) -> bool:
        """Whether two tensors hold the same numbers, in whatever dtypes."""
        a, b = self.map(first), self.map(second)
        same = a.shape == b.shape and all(
            x.tobytes() == y.tobytes() if x.dtype == y.dtype else _equal(x, y)
            for x, y in _blocks(a, b)
        )
        self.drop(first)
        self.drop(second)
        return same

    def _add(self, path: Path, stored: str) -> None:
        """Take a file's tensor; another file may hold the same once more, but no other bytes."""
        name = self.renamed.get(stored, stored)
        if name in self._place:
            before, entry = self._find(name)
            again = self.files.headers[path][stored]
            if (entry.tag, entry.shape) != (again.tag, again.shape) or not np.array_equal(
                self._bytes(before, entry), self._bytes(path, again)
            ):
                where = f"{before.name} and {path.name}"
                message = f"{self.folder}: tensor {show(name)} differs between {where}"
                raise DamagedError(message, hint="remove it from one of them")
        self._place[name] = (path, stored)

    def _require_shards(self) -> None:
        """Raise MissingError when a shard that is not there holds what the model has."""
        lacking = [name for name in parameter_shapes(self.config) if name not in self]
        if self.files.absent and lacking:
            shard, *others = self.files.absent
            more = f" (nor are {len(others)} more that it names)" if others else ""
            lacks = listed(grouped(lacking))
            message = (
                f"{shard}: is not there{more}, but {INDEX} names it; no other file has {lacks}"
            )
            raise MissingError(message)

    def _bytes(self, path: Path, entry: Entry) -> NDArray[np.uint8]:
        if entry.size_bytes == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(self._map(path), np.uint8, entry.size_bytes, entry.offset)

    def _find(self, name: str) -> tuple[Path, Entry]:
        if name not in self._place:
            message = f"{self.folder}: there is no tensor {show(name)}"
            raise DamagedError(message)
        path, stored = self._place[name]
        return path, self.files.headers[path][stored]

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            ends = max(e.offset + e.size_bytes for e in self.files.headers[path].values())
            if len(mapped) != ends:
                message = f"{path}: has {len(mapped)} bytes, {ends} when it was opened"
                raise DamagedError(message, hint="the file is being changed")
            self._maps[path] = mapped
        return self._maps[path]


def _blocks(
    a: NDArray[np.generic], b: NDArray[np.generic]
) -> Iterator[tuple[NDArray[np.generic], NDArray[np.generic]]]:
    """Yield rows of both at once, few enough to compare in little memory."""
    for start in range(0, len(a), 4096):
        yield a[start : start + 4096], b[start : start + 4096]


def _equal(x: NDArray[np.generic], y: NDArray[np.generic]) -> bool:
    """Whether values of two dtypes are the same; float64 holds those of all that are supported."""
    return np.array_equal(x.astype(np.float64), y.astype(np.float64))
