"""Damaged and hostile variants of a file's bytes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from hdf5_blocks import Block, repaired

ODD_NUMBERS = (0, 1, 0x7F, 0xFF, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, -1)
Random = np.random.Generator


class Mutation(NamedTuple):
    """How a file was changed, and its bytes."""

    kind: str
    data: bytes


def mutations(data: bytes, count: int, *, seed: int, blocks: Sequence[Block]) -> Iterator[Mutation]:
    """Yield ``count`` variants. Where there are ``blocks``, two in three are changed inside one
    and get a right checksum again, so that the change reaches the parser."""
    random = np.random.Generator(np.random.PCG64(seed))
    for _ in range(count):
        kind, change = _CHANGES[random.integers(len(_CHANGES))]
        if blocks and random.random() < 2 / 3:
            block = blocks[random.integers(len(blocks))]
            inside = change(data[block.start : block.end], random)
            inside = inside[: block.end - block.start].ljust(block.end - block.start, b"\0")
            changed = data[: block.start] + inside + data[block.end :]
            yield Mutation(f"{kind} with its checksum", repaired(changed, block))
        else:
            yield Mutation(kind, change(data, random))


def flips(data: bytes, count: int, *, seed: int) -> Iterator[Mutation]:
    """Yield ``count`` variants with one flipped bit."""
    random = np.random.Generator(np.random.PCG64(seed))
    for _ in range(count):
        yield Mutation("bit", _flip(data, random))


def truncations(data: bytes, count: int) -> Iterator[Mutation]:
    """Yield ``count`` shortened variants, from none of the bytes to all but one."""
    for length in np.linspace(0, len(data) - 1, count, dtype=np.int64):
        yield Mutation("cut", data[:length])


def _put(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece[: len(data) - at] + data[at + len(piece) :]


def _flip(data: bytes, random: Random) -> bytes:
    bit = int(random.integers(len(data) * 8))
    return _put(data, bit // 8, bytes([data[bit // 8] ^ 1 << bit % 8]))


def _byte(data: bytes, random: Random) -> bytes:
    return _put(data, int(random.integers(len(data))), random.bytes(1))


def _number(data: bytes, random: Random) -> bytes:
    size = int(random.choice([1, 2, 4, 8]))
    number = ODD_NUMBERS[random.integers(len(ODD_NUMBERS))] & ((1 << 8 * size) - 1)
    return _put(data, int(random.integers(len(data))), number.to_bytes(size, "little"))


def _copy(data: bytes, random: Random) -> bytes:
    source, target = random.integers(len(data), size=2)
    return _put(data, int(target), data[source : source + random.integers(1, 64)])


def _erase(data: bytes, random: Random) -> bytes:
    return _put(data, int(random.integers(len(data))), bytes(int(random.integers(1, 64))))


def _several(data: bytes, random: Random) -> bytes:
    for _ in range(int(random.integers(2, 8))):
        data = _byte(data, random)
    return data


_CHANGES: list[tuple[str, Callable[[bytes, Random], bytes]]] = [
    ("bit", _flip),
    ("byte", _byte),
    ("number", _number),
    ("copy", _copy),
    ("erased", _erase),
    ("bytes", _several),
]
