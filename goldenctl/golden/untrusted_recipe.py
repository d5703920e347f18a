"""The recipe of a golden or run as its readers see it: raw, but of known types.

A recipe is untrusted. Every key that goldenctl reads has its kind here, so that a reader may
use what is there as it is; a key that is not there is an error that names the file. Other
keys are kept: recipe.py is stricter, for recording the same again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from goldenctl.digests import modern
from goldenctl.errors import DamagedError
from goldenctl.golden.recipe import Kept
from goldenctl.model.jsonfile import parse_object
from goldenctl.records.determinism import Determinism

MAX_DEPTH = 24
_Word = Annotated[str, Meta(max_length=256)]
_Path = Annotated[str, Meta(pattern=r"^[^\x00]*$", max_length=4096)]
_Names = tuple[Annotated[str, Meta(max_length=1024)], ...]

_NULLABLE = ("layers", "sublayers")  # null means all; elsewhere it is as if left out


class _Model(msgspec.Struct):
    path: _Path = ""
    fingerprint: _Word = ""
    config: dict[str, Any] = msgspec.field(default_factory=dict)


class _Case(msgspec.Struct):
    name: _Word = ""
    text: str | None = None
    decode: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    padding: list[int] = []
    tokens: list[list[str]] = []
    decoded: list[str | None] = []
    tokenizer: _Word = ""


class _Modules(msgspec.Struct):
    function: _Word = ""
    transformers: _Word = ""
    cast: bool = False
    inputs: _Path = ""
    root: _Word = ""
    match: _Names = ()
    depth: Annotated[int, Meta(ge=0, lt=1 << 20)] | None = None
    shared: dict[str, str] = {}
    unheld: dict[str, str] = {}


class _Source(msgspec.Struct):
    path: _Path = ""
    content_digest: _Word = ""
    content_sha256: _Word = ""  # in its place in a run from before


class _Known(Kept, frozen=True, kw_only=True):
    """The kinds of the keys that goldenctl reads; others may be there and are kept."""

    model: _Model | None = None
    modules: _Modules | None = None
    cases: tuple[_Case, ...] = ()
    reference: dict[str, Any] | None = None
    golden: _Source | None = None
    backend: dict[str, Any] | None = None
    device: _Word = ""
    mode: _Word = ""
    attention: _Word = ""
    repeat: Annotated[int, Meta(ge=1, lt=1 << 31)] = 1
    iqr_ns: dict[_Path, Annotated[int, Meta(ge=0, lt=1 << 62)]] | None = None
    determinism: Determinism | None = None
    trace: dict[str, Any] | None = None
    sublayers: _Names | None = None
    not_computed: _Names = ()
    faults: _Names = ()
    grafts: _Names = ()


class RecipeObject(dict[str, Any]):
    """A recipe's object; asking for a key that is not there raises DamagedError."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, key: str) -> NoReturn:
        message = f"{self.where} has no {key}"
        raise DamagedError(message, hint="it was not recorded by goldenctl; record it again")


def read_recipe(text: str, path: Path) -> RecipeObject:
    """Return the recipe in ``text``; DamagedError, naming ``path`` and the key, if it is none."""
    where = f"{path}: recipe"
    raw = parse_object(text.encode(), where)
    _refuse_deep(raw, MAX_DEPTH, where)
    try:
        msgspec.convert(raw, _Known)
    except msgspec.ValidationError as error:
        message = f"{where}: {error}"
        raise DamagedError(message, hint="record or replay it again") from error
    said = {key: value for key, value in raw.items() if value is not None or key in _NULLABLE}
    if "golden" in said:
        said["golden"] = modern(said["golden"])
    if "model" in said:
        said["model"] = RecipeObject(said["model"], f"{where}: model")
    return RecipeObject(said, where)


def _refuse_deep(value: object, depth: int, where: str) -> None:
    if depth < 0:
        message = f"{where} is nested deeper than {MAX_DEPTH} levels"
        raise DamagedError(message)
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_deep(item, depth - 1, where)
