"""The recipe as typed records: what was recorded, from what, how and where.

A golden's ``recipe`` attribute and a manifest hold it as JSON. Whoever adds a key to what
``reference.record.recipe`` or ``model.case`` write adds it here, with its default; an unknown
key is refused, so that an old goldenctl never records only half of what a recipe asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from goldenctl.digests import Digest
from goldenctl.dtypes import FLOAT_DTYPES
from goldenctl.errors import DamagedError

Text = Annotated[str, Meta(max_length=4096)]
Word = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=64)]
Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Dtype = Annotated[str, Meta(pattern=f"^({'|'.join(FLOAT_DTYPES)})$")]
TokenRows = tuple[tuple[Count, ...], ...]


class _Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What all records of a recipe have in common."""


class ModelRecipe(_Record, frozen=True):
    """The model: a folder, a GGUF file or ``synth:PRESET?seed=N``, its fingerprint, its parsed
    config, and how its weights were ``quantised`` before they were made float32."""

    path: Text
    fingerprint: Digest
    config: dict[str, Any]
    quantised: Text = ""


class CaseRecipe(_Record, frozen=True):
    """One input. ``token_ids`` is ``[batch, token]``; a golden holds them as a tensor, so
    they are in a manifest only. The rest is as in ``model.case.Case``."""

    name: Name
    text: str | None = None
    token_ids: TokenRows = ()
    why: Text = ""
    decode: Count = 0
    force_tokens: TokenRows = ()
    padding: tuple[Count, ...] = ()
    padding_side: Word = ""
    position_offset: Count = 0
    prefill_chunk: Count = 0
    row_texts: tuple[str | None, ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    decoded: tuple[str | None, ...] = ()
    tokenizer: Word = ""


class Environment(_Record, frozen=True):
    """What computed the golden: other versions or processors may round otherwise."""

    implementation: Word = ""
    attention: Word = ""
    device: Word = ""
    torch: Word = ""
    cpu_capability: Word = ""
    threads: Count = 0
    machine: Word = ""
    python: Word = ""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was computed and kept, in the words of ``golden.layout.Selection``."""

    dtype: Dtype = "float32"
    taps: Annotated[str, Meta(pattern="^(op|sublayer)$")] = "op"
    layers: tuple[Annotated[int, Meta(ge=0, lt=1 << 20)], ...] | None = None
    logits: Annotated[str, Meta(pattern="^(last|all|none)$")] = "last"
    oracle: Annotated[str, Meta(pattern="^(none|budget|keep)$")] = "none"
    budget_dtypes: tuple[Dtype, ...] = ()
    fused_budget: bool = False
    not_finite: Text = ""  # what is to be said of the first op whose result was NaN or Inf


class ModulesRecipe(_Record, frozen=True):
    """A golden of modules: what made the module, and which calls were kept.

    ``function`` is PACKAGE:FUNCTION, ``cast`` whether its module was cast to the recipe's dtype,
    ``transformers`` the class that a checkpoint was loaded as;
    ``inputs`` says what they were given: ``function``, ``tokens``, ``random:SEED`` or
    ``file:DIGEST``. ``root`` is the model's own name, ``shared`` maps further names of a module to
    the one that its calls have, ``unheld`` says by call why its budget says little.
    """

    function: Text = ""
    transformers: Word = ""
    cast: bool = False
    inputs: Text = ""
    root: Word = ""
    match: tuple[Text, ...] = ()
    depth: Count | None = None
    shared: dict[str, str] = {}
    unheld: dict[str, str] = {}


class Recipe(Kept, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is needed to record the same golden again, and to judge a change."""

    model: ModelRecipe | None = None
    modules: ModulesRecipe | None = None
    cases: tuple[CaseRecipe, ...] = ()
    reference: Environment | None = None
    part_of: Digest | None = None  # the content of the golden that an export cut it from


def parse_recipe(raw: Mapping[str, Any], where: str) -> Recipe:
    """Return a golden's recipe typed; DamagedError naming ``where`` and the key at fault."""
    try:
        return msgspec.convert(dict(raw), Recipe)
    except msgspec.ValidationError as error:
        message = f"{where}: not a recipe that this goldenctl knows: {error}"
        raise DamagedError(message) from error
