"""How sizes, durations, factors and counts are written for people."""

from __future__ import annotations

import math


def human_bytes(count: int) -> str:
    """Return a size such as ``1.5 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_ns(ns: float) -> str:
    """Return a duration such as ``1.5 ms``."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


def per_second(tokens: float) -> str:
    """Return a rate such as ``5,083 tok/s`` or ``24.55 tok/s``."""
    rounded = float(f"{tokens:.4g}")
    return f"{rounded:,.0f} tok/s" if rounded >= 1000 else f"{rounded:g} tok/s"


def factor(value: float) -> str:
    """Return how many times one thing is another, two digits and no exponent: ``0.14×``,
    ``420×``; ``<0.01×`` and ``>9999×`` beyond, ``-`` for what is no number."""
    if math.isnan(value):
        return "-"
    if value >= 9999.5:
        return ">9999×"
    if 0 < value < 0.01:
        return "<0.01×"
    rounded = float(f"{value:.2g}")
    return f"{rounded:.0f}×" if rounded >= 10 else f"{rounded:g}×"


def plural(count: int, word: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
