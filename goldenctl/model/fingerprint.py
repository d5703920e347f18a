"""A checkpoint's fingerprint, and the cache of file digests that makes it cheap."""

from __future__ import annotations

import contextlib
import json
import mmap
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from goldenctl.atomic import write_whole
from goldenctl.digests import SHA256, Hasher, hex_of, of_text
from goldenctl.errors import DamagedError, GoldenctlError
from goldenctl.folders import cache_folder
from goldenctl.model.config import ModelConfig
from goldenctl.model.jsonfile import read_object
from goldenctl.model.safetensors_header import Entry

THREADS = 2
CHUNK_BYTES = 8 << 20
CACHE_ENTRIES = 256
# A file changed this recently could change again within one tick of the file system's
# clock, with the same stamp: its digests are not cached.
RACY_S = 2.0
_HEX = re.compile(r"[0-9a-f]{64}")

Files = Mapping[Path, Mapping[str, Entry]]


def fingerprint(config: ModelConfig, files: Files, renamed: Mapping[str, str]) -> str:
    """Return the digest of the canonical JSON of config and tensors with their digests.

    All of them are SHA-256: a checkpoint has the same fingerprint for ever.

    ``renamed`` has the canonical name of each stored one that has another: the same weights
    under other names have one fingerprint.
    """
    cache = _load_cache()
    digests = {path: _file_digests(path, entries, cache) for path, entries in files.items()}
    found = {
        renamed.get(name, name): (entry.tag, list(entry.shape), digests[path][name])
        for path, entries in files.items()
        for name, entry in entries.items()
    }
    tensors = sorted((name, *said) for name, said in found.items())
    content = {"goldenctl_fingerprint": 1, "config": config.to_dict(), "tensors": tensors}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return of_text(text, SHA256)


def _file_digests(
    path: Path, entries: Mapping[str, Entry], cache: Mapping[str, Any]
) -> dict[str, str]:
    """Return the SHA-256 of each tensor of a file, from the cache when it is unchanged."""
    stamp = _stamp(path)
    cached = _cached(cache.get(str(path.resolve())), stamp)
    if cached is not None and cached.keys() == entries.keys():
        return cached
    digests = _hash_tensors(path, entries)
    if _stamp(path) != stamp:
        message = f"{path}: changed while it was being read"
        raise DamagedError(message)
    if time.time() - max(stamp[1:3]) * 1e-9 > RACY_S:
        _store(str(path.resolve()), {"stamp": stamp, "tensors": digests})
    return digests


def _cached(entry: object, stamp: list[int]) -> dict[str, str] | None:
    """Return the digests of a file's entry in the cache, which may be anything, or None."""
    if not isinstance(entry, dict) or entry.get("stamp") != stamp:
        return None
    tensors = entry.get("tensors")
    if not isinstance(tensors, dict):
        return None
    fine = all(isinstance(value, str) and _HEX.fullmatch(value) for value in tensors.values())
    return tensors if fine else None


def _stamp(path: Path) -> list[int]:
    """Return what changes when a file is written, replaced or restored over."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _hash_tensors(path: Path, entries: Mapping[str, Entry]) -> dict[str, str]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:

        def digest(entry: Entry) -> str:
            hasher = Hasher(SHA256)
            end = entry.offset + entry.size_bytes
            with memoryview(mapped) as view:
                for start in range(entry.offset, end, CHUNK_BYTES):
                    with view[start : min(start + CHUNK_BYTES, end)] as chunk:
                        hasher.update(chunk)  # releases the GIL
                    page = start // mmap.PAGESIZE * mmap.PAGESIZE
                    mapped.madvise(mmap.MADV_DONTNEED, page, min(CHUNK_BYTES, end - page))
            return hex_of(hasher.digest)

        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(entries, pool.map(digest, entries.values()), strict=True))


def cache_path() -> Path:
    """Return the cache file; raises MissingError where there is no folder for it."""
    return cache_folder() / "fingerprints.json"


def _load_cache() -> dict[str, Any]:
    """Return the cache; a missing or damaged one is empty."""
    try:
        return read_object(cache_path())
    except GoldenctlError:
        return {}


def _store(key: str, entry: dict[str, Any]) -> None:
    """Add an entry; a cache that cannot be written is none."""
    with contextlib.suppress(OSError, GoldenctlError):
        target = cache_path()
        entries = {k: v for k, v in _load_cache().items() if k != key}
        kept = dict([*list(entries.items())[1 - CACHE_ENTRIES :], (key, entry)])
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(target, json.dumps(kept).encode())
