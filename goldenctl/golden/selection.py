"""What of a forward pass a golden keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from goldenctl.flags import flag
from goldenctl.places import layer_of

if TYPE_CHECKING:
    from goldenctl.model.graph import Sublayer

ORACLES = ("none", "budget", "keep")
_ALWAYS = ("taps", "layers", "logits", "oracle")


@dataclass(frozen=True)
class Selection:
    """What of a forward pass is kept; a recipe says it under the same names (golden/recipe.py).

    ``layers`` are decoder layer numbers, None for all. ``fused_budget`` adds to an oracle's
    budgets that of a fused attention kernel.
    """

    taps: str = flag(
        "op",
        "Keep the outputs of every op, or only those of sublayers.",
        kind=("op", "sublayer"),
        shown=True,
    )
    layers: frozenset[int] | None = flag(
        None, "Keep only these decoder layers, such as 0-4,10.", kind="layers", metavar="LIST"
    )
    logits: str = flag(
        "last",
        "Keep the logits of the last token, of all tokens, or none; with none the pass ends at "
        "the last layer of --layers.",
        kind=("last", "all", "none"),
        shown=True,
    )
    oracle: str = flag(
        "none",
        "Also compute each op in a wider type, and keep its rounding budget (plain --oracle), or "
        "the truth as well.",
        kind=ORACLES,
    )
    budget_dtypes: tuple[str, ...] = flag(
        (),
        "With --oracle: also keep budgets for replays in these dtypes.",
        kind="dtypes",
        metavar="LIST",
    )
    fused_budget: bool = True

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any]) -> Selection:
        """Return what a recipe, whose types were checked, says was kept."""
        given = {key: recipe[key] for key in (f.name for f in fields(cls)) if key in recipe}
        layers = given.get("layers")
        given["layers"] = None if layers is None else frozenset(layers)
        given["budget_dtypes"] = tuple(given.get("budget_dtypes", ()))
        return cls(**{"fused_budget": False, **given})

    def to_recipe(self) -> dict[str, Any]:
        """Return what a recipe says of this; the newer keys only where they are not default."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said["layers"] = None if self.layers is None else sorted(self.layers)
        said["fused_budget"] = self.has_fused_budget
        said["budget_dtypes"] = list(self.budget_dtypes)
        return {key: value for key, value in said.items() if value or key in _ALWAYS}

    @property
    def has_fused_budget(self) -> bool:
        """Whether a budget for fused attention is kept: beside that of ``context``."""
        return self.fused_budget and self.oracle != "none" and self.taps == "op"

    def keeps(self, sublayer: Sublayer) -> bool:
        layer = layer_of(sublayer.name)
        return self.layers is None or layer is None or layer in self.layers
