"""The checksummed blocks of an HDF5 file, so that a mutation can be made to pass the checksum."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MASK = 0xFFFFFFFF
SIGNATURES = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN", b"FSHD")
_LONGEST_SEARCHED = 1024  # bytes; a block without a length field is searched for up to this


@dataclass(frozen=True)
class Block:
    """Bytes ``start .. end`` of a file, whose checksum stands in the four bytes after them."""

    start: int
    end: int


def blocks(data: bytes) -> list[Block]:
    """Find the superblock and every block that starts with a known signature."""
    found = [Block(0, 44)]
    for start in _signatures(data):
        end = _end(data, start)
        if end is not None:
            found.append(Block(start, end))
    return [block for block in found if _holds(data, block)]


def repaired(data: bytes, block: Block) -> bytes:
    """Return the file with the block's checksum made right."""
    checksum = struct.pack("<I", lookup3(data[block.start : block.end]))
    return data[: block.end] + checksum + data[block.end + 4 :]


def _signatures(data: bytes) -> Iterator[int]:
    for signature in SIGNATURES:
        at = data.find(signature)
        while at >= 0:
            yield at
            at = data.find(signature, at + 1)


def _end(data: bytes, start: int) -> int | None:
    if data[start : start + 4] == b"OHDR":
        flags = data[start + 5]
        size_bytes = 1 << (flags & 3)
        at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        return at + size_bytes + int.from_bytes(data[at : at + size_bytes], "little")
    lengths = range(8, min(_LONGEST_SEARCHED, len(data) - start - 4))
    return next((start + n for n in lengths if _holds(data, Block(start, start + n))), None)


def _holds(data: bytes, block: Block) -> bool:
    stored = data[block.end : block.end + 4]
    return (
        len(stored) == 4
        and lookup3(data[block.start : block.end]) == struct.unpack("<I", stored)[0]
    )


def _rotate(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) & MASK


def lookup3(key: bytes) -> int:
    """Return Bob Jenkins' lookup3 hash (hashlittle with seed 0), HDF5's metadata checksum."""
    a = b = c = (0xDEADBEEF + len(key)) & MASK
    words = struct.unpack(f"<{-(-len(key) // 12) * 3}I", key + bytes(-len(key) % 12))
    if not key:
        return c
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & MASK, (b + words[at + 1]) & MASK, (c + words[at + 2]) & MASK
        a = (a - c) & MASK ^ _rotate(c, 4)
        c = (c + b) & MASK
        b = (b - a) & MASK ^ _rotate(a, 6)
        a = (a + c) & MASK
        c = (c - b) & MASK ^ _rotate(b, 8)
        b = (b + a) & MASK
        a = (a - c) & MASK ^ _rotate(c, 16)
        c = (c + b) & MASK
        b = (b - a) & MASK ^ _rotate(a, 19)
        a = (a + c) & MASK
        c = (c - b) & MASK ^ _rotate(b, 4)
        b = (b + a) & MASK
    a, b, c = (a + words[-3]) & MASK, (b + words[-2]) & MASK, (c + words[-1]) & MASK
    c = ((c ^ b) - _rotate(b, 14)) & MASK
    a = ((a ^ c) - _rotate(c, 11)) & MASK
    b = ((b ^ a) - _rotate(a, 25)) & MASK
    c = ((c ^ b) - _rotate(b, 16)) & MASK
    a = ((a ^ c) - _rotate(c, 4)) & MASK
    b = ((b ^ a) - _rotate(a, 14)) & MASK
    return ((c ^ b) - _rotate(b, 24)) & MASK
