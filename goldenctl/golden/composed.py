"""The default replay mode, and the names of what it adds to a run.

In mode ``op+sublayer`` a run holds each op's result from recorded inputs and, in a folder
``composed``, what leaves a sublayer whose ops were fed by each other. Where a sublayer is a
single op the two are the same, and there is no such folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from goldenctl.golden.calls import MODULE, is_of_modules
from goldenctl.golden.modes import BOTH
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.graph import CACHE_LINKS
from goldenctl.places import is_composed

ROLE = "composed"
# What later steps, the next sublayer and, beside its residual, the projection read; and which
# experts what leaves is of.
_LEAVING = (*CACHE_LINKS.values(), "context", "routing", "output")


def default_mode(recipe: Mapping[str, Any]) -> str:
    """Return how a golden is replayed unless told otherwise: each op from its own recorded
    inputs and each sublayer from its own, where every tap was recorded; each call of a module
    from its own."""
    if is_of_modules(recipe):
        return MODULE
    return BOTH if recipe.get("taps", "op") == "op" else "sublayer"


def leaving(sublayer: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Return, of a sublayer's taps and output, those that have a composed twin."""
    return [info for info in sublayer if info.tap in _LEAVING] if len(sublayer) > 1 else []


def scope_of(mode: str, name: str) -> str:
    """Return what a run's tensor was computed from, as the scopes of budgets name it."""
    if mode != BOTH:
        return mode
    return "sublayer" if is_composed(name) else "op"
