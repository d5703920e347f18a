"""Builds the optional compiled kernel of goldenctl.diff; everything else is in pyproject.toml.

The library is plain C without Python.h, loaded through ctypes. Where it cannot be compiled,
the install goes on and goldenctl uses NumPy instead.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "goldenctl.diff._native",
            sources=["goldenctl/diff/kernel.c"],
            # No contraction: every instruction set gives the same sums.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
