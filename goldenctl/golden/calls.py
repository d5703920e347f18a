"""Goldens of modules: names of calls, and the tree that they are in.

Such a golden has a group for each call of a module, ``cases/CASE/steps/STEP/CALL``, in place of a
decoder's sublayers. CALL is the module's qualified name, dots and all; of a module that is called
several times in a step ``NAME#0``, ``NAME#1``. The model itself goes by its class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from goldenctl.errors import UsageError
from goldenctl.places import place_of

MODULE = "module"
"""The mode in which each call is computed from its recorded inputs."""
DRAWS = "draws random numbers"
"""How the reason begins for which a call's results cannot be judged at all."""
_NUMBERED = re.compile(r"(.+)#(\d{1,7})", re.ASCII)


def is_of_modules(recipe: Mapping[str, Any]) -> bool:
    """Whether a golden's recipe is that of a golden of modules."""
    return recipe.get("modules") is not None


def call_name(module: str, number: int, count: int) -> str:
    """Return the name of a module's call: its own, or ``NAME#2`` where there are several."""
    return module if count == 1 else f"{module}#{number}"


def split_call(call: str) -> tuple[str, int]:
    """Return a call's module and its number: ("conv", 1) of ``conv#1``."""
    found = _NUMBERED.fullmatch(call)
    return (found[1], int(found[2])) if found else (call, 0)


def module_of(path: str) -> str:
    """Return the module of a call's group."""
    return split_call(place_of(path).sublayer)[0]


def is_within(module: str, ancestor: str, root: str) -> bool:
    """Whether a module is below another one; all are below the model itself."""
    return module != ancestor and (ancestor == root or module.startswith(f"{ancestor}."))


def depth_of(module: str, root: str) -> int:
    """Return how far below the model a module is: 0 for itself."""
    return 0 if module == root else module.count(".") + 1


def nearest_ancestor(module: str, known: Iterable[str], root: str) -> str | None:
    """Return the closest of the modules that this one is in; None where there is none."""
    above = [name for name in known if is_within(module, name, root)]
    return max(above, key=lambda name: depth_of(name, root), default=None)


def refuse_modules(recipe: Mapping[str, Any], what: str) -> None:
    """Raise UsageError where ``what`` works on a decoder's ops and the golden has none."""
    if is_of_modules(recipe):
        message = f"{what}: the golden is one of modules, which has no decoder's ops"
        raise UsageError(message, hint="record the checkpoint without --module and --reference")
