"""The digests by which rows of weights are told apart; shim/digest.h has the same in C++."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
# Takes a contiguous matrix; returns uint64 [rows].
DigestRows = Callable[[NDArray[Any]], Digests]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xD6E8FEB86659FD93)
_SECOND = np.uint64(0xA0761D6478BD642F)
_BLOCK_WORDS = 1 << 15  # of temporaries, so that they stay in the cache


def digest_rows(matrix: NDArray[Any]) -> Digests:
    """Return the digest of each row of a contiguous matrix, in NumPy."""
    count, row_bytes = matrix.shape[0], matrix.shape[1] * matrix.itemsize
    data = matrix.view(np.uint8).reshape(count, row_bytes)
    words = -(-row_bytes // 8)
    keys = _STEP * np.arange(1, words + 1, dtype=np.uint64)
    digests = np.empty(count, np.uint64)
    height = max(1, _BLOCK_WORDS // max(words, 1))
    for start in range(0, count, height):
        block = data[start : start + height]
        if row_bytes % 8:
            block = np.pad(block, ((0, 0), (0, words * 8 - row_bytes)))
        mixed = _mixed(np.ascontiguousarray(block).view("<u8") + keys)
        digests[start : start + height] = mixed.sum(axis=1, dtype=np.uint64)
    return _mixed(digests + np.uint64(row_bytes))


def native_digest_rows(library: Path) -> DigestRows:
    """Return the same function of the built shim, which is several times faster."""
    function = ctypes.CDLL(str(library)).goldenctl_digest_rows
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]

    def digest(matrix: NDArray[Any]) -> Digests:
        matrix = np.ascontiguousarray(matrix)
        digests = np.empty(len(matrix), np.uint64)
        function(
            matrix.ctypes.data, len(matrix), matrix.shape[1] * matrix.itemsize, digests.ctypes.data
        )
        return digests

    return digest


def _mixed(words: Digests) -> Digests:
    words ^= words >> np.uint64(32)
    words *= _FIRST
    words ^= words >> np.uint64(29)
    words *= _SECOND
    words ^= words >> np.uint64(32)
    return words
