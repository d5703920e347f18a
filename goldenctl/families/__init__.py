"""The model families, a module each: its ``model_type`` is the module's name.

Facts are read from the configuration and modeling files of transformers 5.23. What a family
differs in is data of its module; no code elsewhere asks which one it is.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from goldenctl.families.family import Family

_SHARED = ("family", "keys")


def _found() -> dict[str, Family]:
    names = sorted({module.name for module in pkgutil.iter_modules(__path__)} - {*_SHARED})
    return {name: import_module(f"{__name__}.{name}").FAMILY for name in names}


FAMILIES: dict[str, Family] = _found()
PRESETS: dict[str, dict[str, Any]] = {
    preset: {"model_type": name, **shape}
    for name, family in FAMILIES.items()
    for preset, shape in family.presets.items()
}
"""Shapes of synthetic checkpoints by name, as in ``config.json``."""
