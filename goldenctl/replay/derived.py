"""Owns the tables that a faulty RoPE uses: ``rope_cos#shift=1`` and its like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.config import ModelConfig
from goldenctl.model.rope import rope_tables


def is_derived(name: str) -> bool:
    """Whether a tensor's name is that of a derived table."""
    return "#" in name


def derived_table(name: str, config: ModelConfig, positions: int) -> NDArray[np.float32]:
    """Return ``[position, rotary]`` of ``rope_cos`` or ``rope_sin`` with its change applied.

    ``theta=X`` is another base, ``shift=N`` the table of position p + N at row p, ``half``
    leaves the upper half of the frequencies unrotated.
    """
    base, _, change = name.partition("#")
    kind, _, value = change.partition("=")
    if kind == "theta":
        config = replace(config, rope=replace(config.rope, rope_theta=float(value)))
    shift = int(value) if kind == "shift" else 0
    index = np.arange(positions) + shift
    tables = rope_tables(config, int(np.abs(index).max()) + 1)
    table = tables[0 if base == "rope_cos" else 1][np.abs(index)]
    if base == "rope_sin":  # sin(-x) = -sin x, cos(-x) = cos x
        table[index < 0] *= -1
    if kind == "half":
        table[:, table.shape[1] // 2 :] = 1.0 if base == "rope_cos" else 0.0
    return table
