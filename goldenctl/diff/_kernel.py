"""Calls into kernel.c: the compiled library is found, checked and loaded here."""

from __future__ import annotations

import ctypes
import importlib.machinery
from pathlib import Path

import numpy as np

from goldenctl.diff.sums import DTYPE_CODES, ROW_SUMS, Array, Job, Partial, RowErrors

_FLOATS = ("actual_squared", "expected_squared", "dot", "error_squared", "error_sum",
           "max_error", "max_expected")  # fmt: skip


class _Partial(ctypes.Structure):
    """``partial_t`` of kernel.c."""

    _fields_ = tuple(
        (name, ctypes.c_double if name in _FLOATS else ctypes.c_int64) for name in Partial.__slots__
    )


class _Rows(ctypes.Structure):
    """``rows_t`` of kernel.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ROW_SUMS)


def _load() -> ctypes.CDLL | None:
    """Load the library that ``pip install`` built beside this file, None when there is none."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_native{suffix}")
        if not path.is_file():
            continue
        try:
            library = ctypes.CDLL(str(path))
            library.goldenctl_struct_bytes.restype = ctypes.c_int64
            if library.goldenctl_struct_bytes() != ctypes.sizeof(_Partial) + ctypes.sizeof(_Rows):
                continue  # built from another version of kernel.c
        except (OSError, AttributeError):
            continue
        _declare(library)
        return library
    return None


def _declare(library: ctypes.CDLL) -> None:
    pointer, real, whole = ctypes.c_void_p, ctypes.c_double, ctypes.c_int64
    library.goldenctl_score.restype = None
    library.goldenctl_score.argtypes = [
        ctypes.c_int, ctypes.c_int, pointer, pointer, whole, whole, real, real, whole,
        _Rows, ctypes.POINTER(_Partial),
    ]  # fmt: skip
    library.goldenctl_read_sum.restype = ctypes.c_uint64
    library.goldenctl_read_sum.argtypes = [pointer, whole]


LIBRARY = _load()


def score_range(job: Job, start: int, end: int) -> Partial:
    """Score elements ``start`` to ``end``; fills the job's rows, which start at ``start``."""
    assert LIBRARY is not None
    part = _Partial()
    LIBRARY.goldenctl_score(
        DTYPE_CODES[job.actual.dtype.name], DTYPE_CODES[job.expected.dtype.name],
        job.actual.ctypes.data, job.expected.ctypes.data, start, end, job.atol, job.rtol,
        job.rows.row_length if job.rows else 0, _row_pointers(job.rows), ctypes.byref(part),
    )  # fmt: skip
    ulp = int(np.uint64(part.max_ulp & 0xFFFFFFFFFFFFFFFF))
    values = {name: getattr(part, name) for name in Partial.__slots__}
    return Partial(**values | {"max_ulp": ulp})


def _row_pointers(rows: RowErrors | None) -> _Rows:
    return _Rows() if rows is None else _Rows(*(array.ctypes.data for array in rows.sums))


def read_sum(words: Array) -> int:
    """Read an array of 64-bit words and return their sum modulo 2**64 (for benchmarks)."""
    assert LIBRARY is not None
    return int(LIBRARY.goldenctl_read_sum(words.ctypes.data, words.size))
