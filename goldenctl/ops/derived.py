"""The tables that a faulty RoPE uses: ``rope_cos#shift=1`` and its like.

A name holds every change that was made to a table, each once and in one order, so that equal
tables have equal names: ``rope_cos#theta=10000#shift=1#half=1``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.config import ModelConfig
from goldenctl.model.rope import exact_rope_tables, rope_tables, with_theta

_EXACT_TABLES = 1.0
_CHANGES = ("theta", "shift", "half", "exact")


def is_derived(name: str) -> bool:
    """Whether a tensor's name is that of a derived table."""
    return "#" in name


def derived(name: str, **change: float) -> str:
    """Return the name of a table, itself derived or not, with a change: another theta and the
    upper half unrotated take the place of what there was, shifts add up."""
    base, changes = _split(name)
    for kind, value in change.items():
        changes[kind] = value + (changes.get("shift", 0.0) if kind == "shift" else 0.0)
    made = (f"#{kind}={changes[kind]:g}" for kind in _CHANGES if changes.get(kind))
    return base + "".join(made)


def _split(name: str) -> tuple[str, dict[str, float]]:
    """Split ``rope_cos#shift=1`` into the constant and what is done to it."""
    base, *parts = name.split("#")
    pairs = (part.partition("=") for part in parts)
    return base, {kind: float(value) for kind, _, value in pairs}


def derived_table(name: str, config: ModelConfig, positions: int) -> NDArray[np.floating[Any]]:
    """Return ``[position, rotary]`` of ``rope_cos`` or its like with its changes applied.

    ``theta=X`` is another base, ``shift=N`` the table of position p + N at row p, ``half=1``
    leaves the upper half of the frequencies unrotated. ``exact=1`` computes it in float64
    throughout, ``exact=2`` only its angles, from float32 frequencies; these tables are float64.
    """
    base, changes = _split(name)
    if "theta" in changes:
        config = with_theta(config, base, changes["theta"])
    index = np.arange(positions) + int(changes.get("shift", 0))
    exact, count = changes.get("exact", 0.0), int(np.abs(index).max()) + 1
    tables: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] = (
        exact_rope_tables(config, count, base, exact_frequencies=exact == _EXACT_TABLES)
        if exact
        else rope_tables(config, count, base)
    )
    cosine = base.endswith("_cos")
    table = tables[0 if cosine else 1][np.abs(index)]
    if not cosine:  # sin(-x) = -sin x, cos(-x) = cos x
        table[index < 0] *= -1
    if "half" in changes:
        table[:, table.shape[1] // 2 :] = 1.0 if cosine else 0.0
    return table
