"""Other programs' tensor dumps: one file of a format that is known here, or a folder of them.

A dump is untrusted: nothing in it is evaluated or unpickled, every declared size is held
against the file before anything is allocated, and names are never made into paths. A new
format is one more entry of ``READERS``.
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError, printable
from goldenctl.exchange.dump_numpy import MAGIC as NPY_MAGIC
from goldenctl.exchange.dump_numpy import is_npz, read_npy, read_npz
from goldenctl.exchange.dump_safetensors import read_safetensors
from goldenctl.exchange.dump_tensor import (
    DumpTensor,
    damage_named,
    refuse_name,
    rehearse,
    unreadable,
)
from goldenctl.exchange.dump_torch import LEGACY_MAGIC, is_torch_zip, read_torch
from goldenctl.exchange.records import MAGIC as LOG_MAGIC
from goldenctl.exchange.taps import read_taps
from goldenctl.golden.schema import HDF5_MAGIC

_HEAD_BYTES = 64
_MAX_FILES = 1 << 17
_LISTED = 3
_LONG_ZIP_BYTES = 16 << 20  # its list of members, if that is all of it, takes 200 MiB of memory
_ZIP_MAGIC = b"PK"
_SAVE = "save the dump with safetensors or numpy.savez"


@dataclass(frozen=True)
class Reader:
    """A format: its name, the endings of its files, what tells it by a file's first bytes
    (looking further where these do not tell), and what returns its tensors by name."""

    what: str
    suffixes: tuple[str, ...]
    is_it: Callable[[bytes, Path], bool]
    read: Callable[[Path], dict[str, DumpTensor]]


READERS = (
    Reader(
        "safetensors",
        (".safetensors",),
        # The header's length, eight bytes, is far below 4 GiB.
        lambda head, path: (
            head[8:9] == b"{" and (head[4:8] == bytes(4) or path.suffix == ".safetensors")
        ),
        read_safetensors,
    ),
    Reader("taps", (".taps",), lambda head, _: head.startswith(LOG_MAGIC), read_taps),
    Reader("npy", (".npy",), lambda head, _: head.startswith(NPY_MAGIC), read_npy),
    Reader(
        "PyTorch",
        (".pt", ".pth"),
        lambda head, path: (
            head.startswith(LEGACY_MAGIC) or (head.startswith(_ZIP_MAGIC) and is_torch_zip(path))
        ),
        read_torch,
    ),
    Reader(
        "npz", (".npz",), lambda head, path: head.startswith(_ZIP_MAGIC) and is_npz(path), read_npz
    ),
)
# What else is met in dumps, to be called by its name.
_OTHERS = (
    (b"GGUF", "GGUF"),
    (HDF5_MAGIC, "HDF5"),
    (_ZIP_MAGIC, "a zip file without arrays"),
    (b"\x80", "a Python pickle"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


@dataclass(frozen=True)
class Unread:
    """A file of a folder that was not read: what it is, or the error that reading it gave."""

    path: Path
    what: str
    error: GoldenctlError | None = None


class Dump(dict[str, DumpTensor]):
    """The tensors of a dump by name, and the files of its folder that were not read."""

    def __init__(self, tensors: Mapping[str, DumpTensor], unread: tuple[Unread, ...] = ()) -> None:
        super().__init__(tensors)
        self.unread = unread

    def left_out(self) -> Iterator[str]:
        """Yield lines on what was not read: one for all files that are of no known kind, and one
        for each file or tensor that is damaged."""
        others = [file for file in self.unread if file.error is None]
        if others:
            shown = ", ".join(f"{file.path.name} ({file.what})" for file in others[:_LISTED])
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            count = "1 file is" if len(others) == 1 else f"{len(others)} files are"
            yield printable(f"{count} not read: {shown}{more}; {_SAVE}")
        damaged = [file.error for file in self.unread if file.error is not None]
        damaged += [tensor.problem for tensor in self.values() if tensor.problem is not None]
        for error in damaged[:_LISTED]:
            yield printable(f"not read: {error}")
        if len(damaged) > _LISTED:
            yield f"{len(damaged) - _LISTED} more are not read for such reasons"


def read_dump(path: Path) -> Dump:
    """Return the tensors of a dump by name; nothing but headers is read, where there are any.

    A folder is read with its subfolders, whose names the tensors in them have before their own.
    Raises UsageError when there is no such file or it is of no known kind, MissingError for a
    folder without one and for a PyTorch file without torch, DamagedError when a file is
    malformed or two files of a folder have the same tensor.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        message = f"{path}: there is no such file"
        raise UsageError(message)
    found = _read_file(path)
    if isinstance(found, str):
        known = "neither safetensors nor npz nor npy nor taps nor a PyTorch file"
        message = f"{path}: {found}, {known}"
        raise UsageError(message, hint=_SAVE)
    return Dump(found)


def _read_file(path: Path) -> dict[str, DumpTensor] | str:
    """Return a file's tensors, or what it is where it is of no format that is read."""
    with damage_named(path), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_ZIP_MAGIC) and path.stat().st_size > _LONG_ZIP_BYTES:
        rehearse(path, lambda: zipfile.ZipFile(path).close())
    for reader in READERS:
        if reader.is_it(head, path):
            return reader.read(path)
    what = next((name for magic, name in _OTHERS if head.startswith(magic)), "")
    for reader in READERS:
        if not what and path.suffix in reader.suffixes:
            message = f"{path}: not a usable dump: it does not start as {reader.what} does"
            raise DamagedError(message, hint="dump it again")
    return what or (f"a {path.suffix} file" if path.suffix else "of no known type")


def _read_folder(folder: Path) -> Dump:
    """Read every file below a folder. One that is damaged spoils no other."""
    files: list[tuple[Path, dict[str, DumpTensor]]] = []
    unread: list[Unread] = []
    for path in _files(folder):
        try:
            found = _read_file(path)
            if isinstance(found, str):
                unread.append(Unread(path, found))
                continue
            for name in found:
                _refuse_name_in(folder, path, name)
            files.append((path, found))
        except GoldenctlError as error:
            if path.suffix == ".npy" and path.stem.isprintable():
                files.append((path, {path.stem: unreadable(path.stem, str(path), error)}))
            else:
                unread.append(Unread(path, path.suffix, error))
    tensors = _named(folder, [_logged(path, found) for path, found in files])
    if all(tensor.problem is not None for tensor in tensors.values()):
        _refuse_empty(folder, unread, tensors)
    return Dump(tensors, tuple(unread))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in order, without hidden ones; links to folders are not
    followed."""
    count = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            count += 1
            if count > _MAX_FILES:
                message = f"{folder}: it has more than {_MAX_FILES:,} files"
                raise UsageError(message, hint="name a part of it")
            path = Path(where) / name
            if path.is_file():
                yield path


def _refuse_name_in(folder: Path, path: Path, name: str) -> None:
    """Raise DamagedError for a tensor whose name with its folders cannot be listed."""
    with damage_named(path):
        refuse_name(f"{_prefix(folder, path)}{path.stem}/{name}", seen=False)


def _prefix(folder: Path, path: Path) -> str:
    inside = path.parent.relative_to(folder).as_posix()
    return "" if inside == "." else f"{inside}/"


def _logged(path: Path, found: dict[str, DumpTensor]) -> tuple[Path, dict[str, DumpTensor]]:
    """Return a file of SGLang's dumper under a path that names can be guessed from:
    ``forward_pass_id=1/rank=0/NAME.pt`` for one of all these joined with ``___``."""
    fields = [part.partition("=") for part in path.stem.split("___")]
    known = {key: value for key, _, value in fields}
    if len(fields) < 2 or "name" not in known or not all(sign for _, sign, _ in fields):
        return path, found
    folders = [f"{key}={value}" for key, _, value in fields if key not in ("name", "dump_index")]
    stem = known["name"].replace("/", ".")
    place = path.parent.joinpath(*folders, f"{stem}{path.suffix}")
    return place, {stem if name == path.stem else name: t for name, t in found.items()}


def _named(folder: Path, files: list[tuple[Path, dict[str, DumpTensor]]]) -> dict[str, DumpTensor]:
    """Return all tensors under the names of their folders. Where two files of a folder have a
    name in common, as those of one layer or of one step each have, the file's name goes before
    the names in it too."""
    counts = Counter((path.parent, name) for path, found in files for name in found)
    common = {parent for (parent, _), count in counts.items() if count > 1}
    tensors: dict[str, DumpTensor] = {}
    for path, found in files:
        prefix = _prefix(folder, path)
        if path.parent in common and set(found) != {path.stem}:
            prefix += f"{path.stem}/"
        for name, tensor in found.items():
            full = prefix + name
            if full in tensors:
                message = f"{path}: tensor {full!r} is also in {tensors[full].where}"
                raise DamagedError(message, hint="name one file of the folder")
            tensors[full] = replace(tensor, name=full)
    return tensors


def _refuse_empty(folder: Path, unread: list[Unread], tensors: dict[str, DumpTensor]) -> None:
    errors = [file.error for file in unread if file.error is not None]
    errors += [tensor.problem for tensor in tensors.values() if tensor.problem is not None]
    if errors:
        raise errors[0]
    message = f"{folder}: there is no .safetensors, .npz, .npy or .taps file in it, nor PyTorch's"
    said = "; ".join(Dump({}, tuple(unread)).left_out())
    raise MissingError(message, hint=said)
