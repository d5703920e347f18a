"""Options declared once: fields of a dataclass that say how they are given on a command line.

``goldenctl.commands.groups`` makes options of them; nothing here needs click.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Flag:
    """How a field is given: ``name`` is its option where that is not the field's own name.

    ``kind`` names what the text is (a type of ``goldenctl.commands.groups``), or lists the
    choices; ``least`` and ``most`` bound a number; ``many`` may be given again and again;
    ``shown`` shows the default in the help.
    """

    help: str
    name: str = ""
    kind: str | tuple[str, ...] = ""
    least: float | None = None
    most: float | None = None
    metavar: str | None = None
    many: bool = False
    shown: bool = False

    def option(self, field: str) -> str:
        """Return the option's name, given that of its field."""
        return self.name or f"--{field.replace('_', '-')}"


def flag(default: Any, help: str, **how: Any) -> Any:
    """Return a field with this default that is an option; ``how`` is as in ``Flag``."""
    return field(default=default, metadata={"flag": Flag(help, **how)})


def flags_of(kind: type) -> Iterator[tuple[Field[Any], Flag]]:
    """Yield the fields of a dataclass that are options."""
    for each in fields(kind):
        if "flag" in each.metadata:
            yield each, each.metadata["flag"]
