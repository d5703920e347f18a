"""Whether a library can be preloaded into a program at all, read off its executable file."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from goldenctl.errors import MissingError

_INTERPRETER = 3  # PT_INTERP: the loader, which preloads
_SYMBOL_TABLES = (2, 11)  # SHT_SYMTAB, SHT_DYNSYM
_FUNCTION = 2  # STT_FUNC
_LIMIT_BYTES = 1 << 28  # of a table that is read
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT_BYTES, _SECTION, _SYMBOL = 56, struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class _Elf:
    """What of a 64-bit executable counts here."""

    interpreted: bool
    functions: frozenset[bytes]  # InfiniCore's that it defines itself


class _NotElfError(Exception):
    """It is no 64-bit little-endian ELF file, or not a whole one."""


def find_program(name: str) -> Path:
    """Return the file of a program; raises MissingError when it cannot be traced.

    Scripts are taken as they are: their interpreters are what is run.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingError(_why_not(name))
    path = Path(found).absolute()  # as a Path "./engine" is "engine", which is looked up in PATH
    if _changes_user(path.stat()):
        message = f"{path}: is setuid or setgid, so nothing can be preloaded into it"
        raise MissingError(message, hint="trace a copy without these bits")
    with path.open("rb") as file:
        start = file.read(20)
        if not start.startswith(b"\x7fELF"):
            return path
        if start[4:5] == b"\1":
            message = f"{path}: is a 32-bit program, and the trace library is not"
            raise MissingError(message, hint="trace a 64-bit build of it")
        try:
            elf = _read(file)
        except (_NotElfError, struct.error):
            return path  # whatever it is, running it will say
    _check(path, elf)
    return path


def _changes_user(status: os.stat_result) -> bool:
    setuid = status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()
    setgid = status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    return bool(setuid or setgid)


def _why_not(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        return f"{name}: is a folder, expected a program"
    if path.is_file() and "/" in name:
        return f"{name}: is not executable"
    return f"{name}: there is no such program"


def _check(path: Path, elf: _Elf) -> None:
    if elf.functions:
        message = (
            f"{path}: has InfiniCore in itself ({min(elf.functions).decode('ascii', 'replace')}): "
            "nothing can stand in front of what is linked statically"
        )
        raise MissingError(message, hint="link it with libinfiniop.so and libinfinirt.so")
    if not elf.interpreted:
        message = f"{path}: is linked statically, so nothing can be preloaded into it"
        raise MissingError(message, hint="link it dynamically")


def _read(file: BinaryIO) -> _Elf:
    data = _Window(file)
    if data.at(4, 2) != b"\2\1":
        raise _NotElfError
    header = _HEADER.unpack(data.at(0, _HEADER.size))
    segments, sections, segment_count, section_count = header[4], header[5], header[9], header[11]
    kinds = (
        struct.unpack("<I", data.at(segments + n * _SEGMENT_BYTES, 4))[0]
        for n in range(segment_count)
    )
    interpreted = _INTERPRETER in set(kinds)
    table = [
        _SECTION.unpack(data.at(sections + n * _SECTION.size, _SECTION.size))
        for n in range(section_count)
    ]
    names = frozenset(
        name for s in table if s[1] in _SYMBOL_TABLES for name in _defined(data, table, s)
    )
    return _Elf(interpreted, names)


def _defined(
    data: _Window, table: list[tuple[int, ...]], section: tuple[int, ...]
) -> Iterator[bytes]:
    """Yield the functions ``infiniopCreate...Descriptor`` that a symbol table defines."""
    _, _, _, _, offset, size, link, _, _, _ = section
    if link >= len(table):
        raise _NotElfError
    strings = data.at(table[link][4], table[link][5])
    symbols = data.at(offset, size)
    for name, info, _, where, _, _ in _SYMBOL.iter_unpack(symbols[: len(symbols) // 24 * 24]):
        if where == 0 or info & 15 != _FUNCTION or not strings.startswith(b"infiniopCreate", name):
            continue
        yield strings[name : strings.index(b"\0", name)]


class _Window:
    """Reads parts of a file, each whole and of a bounded size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def at(self, offset: int, size: int) -> bytes:
        if size > _LIMIT_BYTES or offset >= 1 << 62:
            raise _NotElfError
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise _NotElfError
        return data
