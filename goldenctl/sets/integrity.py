"""The check of a golden set's bytes: the manifest, and every file of it that is here."""

from __future__ import annotations

from goldenctl.digests import algorithm_of, of_file
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.sketch import check_sketch
from goldenctl.sets.manifest import Manifest, Tensor, VersionEntry, load_manifest
from goldenctl.sets.names import GoldenSet

_DESCRIBED = ("dtype", "shape", "dims", "role", "op")


def check_manifest(golden_set: GoldenSet) -> Manifest:
    """Return a set's manifest, its sketches readable.

    Raises MissingError when it has none, DamagedError when it is damaged.
    """
    manifest = load_manifest(golden_set)
    for tensor in manifest.tensors:
        if tensor.sketch is None:
            continue
        try:
            check_sketch(tensor.sketch, tensor.shape)
        except ValueError as error:
            message = f"{golden_set.manifest_path}: {tensor.name}: its sketch is damaged: {error}"
            raise DamagedError(message) from error
    return manifest


def check_files(golden_set: GoldenSet, manifest: Manifest) -> GoldenFile | None:
    """Hash every version that is here; return the one that the manifest describes, if it is.

    Raises DamagedError naming the first file, and where it can be told the tensor, that is
    not what the manifest says.
    """
    described = None
    for entry in manifest.versions:
        if not golden_set.path(entry.version).exists():
            continue
        if entry.version == manifest.version:
            described = _described(golden_set, manifest)
        _check_bytes(golden_set, entry)
    return described


def _described(golden_set: GoldenSet, manifest: Manifest) -> GoldenFile:
    """Open and hash the described version, tensor by tensor, so that damage has a name."""
    golden = open_golden(golden_set.file(manifest.version), kind="golden")
    expected = manifest.by_name
    for name in sorted(expected.keys() ^ golden.tensors.keys()):
        where = golden_set.manifest_path if name in expected else golden.path
        message = f"{name}: is only in {where}, not in the manifest and the file alike"
        raise DamagedError(message, hint=_remedy(golden_set))
    for tensor in expected.values():
        _check_tensor(golden_set, golden, tensor)
    golden.verify_all(expected)
    return golden


def _check_tensor(golden_set: GoldenSet, golden: GoldenFile, tensor: Tensor) -> None:
    info = golden.tensors[tensor.name]
    for key in _DESCRIBED:
        expected, actual = getattr(tensor, key), getattr(info, key)
        if expected != actual:
            message = (
                f"{golden.path}: {tensor.name}: {key} is {actual}, the manifest says {expected}"
            )
            raise DamagedError(message, hint=_remedy(golden_set))
    if info.digest != tensor.digest:
        message = f"{golden.path}: {tensor.name}: its digest is not the manifest's"
        raise DamagedError(message, hint=_remedy(golden_set))


def _check_bytes(golden_set: GoldenSet, entry: VersionEntry) -> None:
    path = golden_set.file(entry.version)
    size = path.stat().st_size
    if size != entry.bytes:
        message = f"{path}: has {size:,} bytes, the manifest says {entry.bytes:,}"
        raise DamagedError(message, hint=_remedy(golden_set))
    if of_file(path, algorithm_of(entry.digest)) != entry.digest:
        message = f"{path}: its digest is not the manifest's"
        raise DamagedError(message, hint=_remedy(golden_set))


def _remedy(golden_set: GoldenSet) -> str:
    return f"remove it, then goldenctl pull {golden_set.name} or record it again"
