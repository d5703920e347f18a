"""Which weight a call reads, held against the one that the model has there."""

from __future__ import annotations

from goldenctl.model.names import EMBEDDING, LM_HEAD
from goldenctl.trace.calls import Arg
from goldenctl.trace.tracing import Tracing, said
from goldenctl.trace.values import Place


def weight_names(tracing: Tracing, arg: Arg) -> list[str]:
    """Return all weights of the checkpoint that a tensor's bytes begin with."""
    pieces = tracing.pieces(arg)
    if pieces:
        return list(pieces[0].tensors)
    tags = tracing.tags(arg)
    return [p.tap for p in tracing.values.found(tags) if p is not None and p.is_weight]


def check_weight(tracing: Tracing, place: Place, expected: str, found: list[str]) -> None:
    """Note a weight that is not the op's own."""
    if expected in found:
        return
    if not found:
        text = f"{said(place, place)}'s weight is not the checkpoint's bytes: modified or converted"
        if (place.sublayer, expected) == ("lm_head", EMBEDDING):
            text = f"its weight is not {EMBEDDING}, to which the checkpoint ties it"
        tracing.find(place, "weight", text)
        return
    tracing.find(place, "weight", _said(place, expected, found[0]))


def _said(place: Place, expected: str, found: str) -> str:
    mine, other = _role(expected), _role(found)
    if {expected, found} == {EMBEDDING, LM_HEAD}:
        return f"its weight is {found}, the checkpoint has {expected}"
    if mine == other:
        return f"{said(place, place)} reads layer {_layer(found)}'s weights"
    where = "" if _layer(found) == _layer(expected) else f"layer {_layer(found)}'s "
    return f"{where}{other}'s bytes are used as {mine}"


def _role(name: str) -> str:
    parts = name.split(".")
    return parts[-2] if parts[-1] == "weight" else f"{parts[-2]}.{parts[-1]}"


def _layer(name: str) -> str:
    parts = name.split(".")
    return parts[parts.index("layers") + 1] if "layers" in parts else "no"
