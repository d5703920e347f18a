"""A program that loads InfiniCore for itself alone, as Python engines do, and adds once."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_int, c_size_t, c_void_p

LIBRARIES = [ctypes.CDLL(f"{sys.argv[1]}/lib/lib{name}.so") for name in ("infinirt", "infiniop")]
RUNTIME, OPERATORS = LIBRARIES
FLOAT32 = 13


def check(status: int) -> None:
    assert status == 0, status


def main() -> None:
    check(RUNTIME.infinirtInit())
    check(RUNTIME.infinirtSetDevice(0, 0))
    handle, tensor, op = c_void_p(), c_void_p(), c_void_p()
    check(OPERATORS.infiniopCreateHandle(byref(handle)))
    shape, strides = (c_size_t * 2)(2, 3), (ctypes.c_ssize_t * 2)(3, 1)
    make = OPERATORS.infiniopCreateTensorDescriptor
    check(make(byref(tensor), c_size_t(2), shape, strides, c_int(FLOAT32)))
    check(OPERATORS.infiniopCreateAddDescriptor(handle, byref(op), tensor, tensor, tensor))
    floats = ctypes.c_float * 6
    a, b, c = floats(1, 2, 3, 4, 5, 6), floats(*[10] * 6), floats()
    check(OPERATORS.infiniopAdd(op, None, c_size_t(0), c, a, b, None))
    sys.stdout.write(f"{list(c)}\n")


main()
