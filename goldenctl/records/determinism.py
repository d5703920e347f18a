"""What a run's recipe says of passes in other orders and over other memory
(docs/replaying.md)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_Word = Annotated[str, Meta(max_length=1024)]


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tap of a sublayer, by its path, that is not deterministic, in which ways, and how that
    was seen."""

    sublayer: _Word
    tap: _Word
    classes: tuple[_Word, ...]
    note: Annotated[str, Meta(max_length=8192)] = ""


class Determinism(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many passes of each kind were made, and what they showed.

    ``poisons`` says whether the backend fills memory as it is told to.
    """

    passes: dict[_Word, int]
    seed: int
    poisons: bool
    findings: tuple[Finding, ...] = ()
