"""Names of tensors taken apart: case, step, sublayer and tap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from goldenctl.errors import DamagedError

FOLDER = "composed"
_LAYER = re.compile(r"layers\.(\d{1,6})\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is: ``cases/CASE/steps/STEP/SUBLAYER/TAP``.

    ``group`` is the path of its folder, ``sublayer`` the dotted name within the step, such as
    ``layers.03.attention``; both it and ``case`` and ``step`` are empty outside.
    """

    group: str
    tap: str
    case: str
    step: str
    sublayer: str

    @property
    def step_path(self) -> str:
        """``cases/default/steps/00``; empty outside a step."""
        return f"cases/{self.case}/steps/{self.step}" if self.step else ""

    @property
    def label(self) -> str:
        """The case and step as people read them: ``default/00``; empty outside a step."""
        return f"{self.case}/{self.step}" if self.step else ""

    @property
    def short(self) -> str:
        """``layers.03.attention.q_proj`` in a sublayer, else the full name."""
        if self.sublayer:
            return f"{self.sublayer}.{self.tap}"
        return f"{self.group}/{self.tap}" if self.group else self.tap


@lru_cache(maxsize=1 << 16)
def place(name: str) -> Place:
    """Take a tensor's name apart."""
    group, _, tap = name.rpartition("/")
    parts = group.split("/")
    case = parts[1] if parts[0] == "cases" and len(parts) > 1 else ""
    step = parts[3] if case and len(parts) > 3 and parts[2] == "steps" else ""
    return Place(group, tap, case, step, ".".join(parts[4:]) if step else "")


def place_of(group: str) -> Place:
    """Take the path of a sublayer or a step apart; its tap is empty."""
    return place(f"{group}/")


def composed_name(name: str) -> str:
    """Return the name of the composed twin of a tensor: ``.../attention/composed/output``."""
    where = place(name)
    return f"{where.group}/{FOLDER}/{where.tap}"


def is_composed(name: str) -> bool:
    return f"/{FOLDER}/" in name


def plain_name(name: str) -> str:
    """Return the name that a tensor has in the golden."""
    return name.replace(f"/{FOLDER}/", "/", 1)


def plain_tap(tap: str) -> str:
    """Return ``output`` for ``composed/output``."""
    return tap.removeprefix(f"{FOLDER}/")


def owner(name: str) -> str:
    """Return the path of the sublayer that a tap, an output or a composed twin belongs to."""
    return place(plain_name(name)).group


def tap_of(name: str) -> str:
    """Return a tensor's name within its sublayer: ``q_proj``, or ``composed/output``."""
    return name.removeprefix(f"{owner(name)}/")


def step_path(case: str, step: int) -> str:
    """Return the path of a step: ``cases/default/steps/00``."""
    return f"cases/{case}/steps/{step:02d}"


def sublayer_path(case: str, step: int, sublayer: str) -> str:
    """Return the path of a sublayer's group; dots of its name become folders."""
    return f"{step_path(case, step)}/{sublayer.replace('.', '/')}"


def step_number(path: str) -> int:
    """Return the step that a path lies in; DamagedError when it is no number of a step."""
    text = path.split("/")[3]
    if not re.fullmatch(r"\d{2}|[1-9]\d{2,5}", text, re.ASCII):
        message = f"{path}: {text!r} is not the number of a step"
        raise DamagedError(message)
    return int(text)


def paths_so_far(path: str) -> list[str]:
    """Return the paths of the same sublayer in every step from the first to this one."""
    parts = path.split("/")
    steps = range(step_number(path) + 1)
    return ["/".join([*parts[:3], f"{step:02d}", *parts[4:]]) for step in steps]


def short_name(path: str) -> str:
    """Return a sublayer's dotted name from its path, empty when the path is outside a step."""
    return place_of(path).sublayer


def layer_of(sublayer: str) -> int | None:
    """Return the decoder layer of a dotted name such as ``layers.03.attention``; None outside."""
    found = _LAYER.match(sublayer)
    return int(found[1]) if found else None
