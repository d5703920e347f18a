"""Which layers of a decoder slide: see the last tokens alone, by the rule of its family.

A window of at least ``max_position_embeddings`` tokens hides nothing, and counts as none.
"""

from __future__ import annotations

from typing import Any

from goldenctl.errors import UsageError
from goldenctl.families.family import Family
from goldenctl.graph.config import ModelConfig
from goldenctl.model.fields import Fields, is_int, show

FULL, SLIDING = "full_attention", "sliding_attention"
# The rules by which families read layer_types; the others have no layers of several kinds.
_BY_TYPE = ("qwen", "pattern")


def read_windows(reader: Fields, family: Family, config: ModelConfig) -> dict[str, Any]:
    """Return ``sliding_window`` and ``sliding_layers``, as far as something is hidden.

    The rules: ``none``, a window is refused; ``always``, every layer has the one that is set;
    ``flag``, if use_sliding_window is true; ``qwen``, then those from max_window_layers on, or
    as layer_types says; ``pattern``, all but each sliding_window_pattern-th, or as layer_types
    says. Raises UsageError for what the family does not have, DamagedError for contradictions.
    """
    types = _layer_types(reader, family, config.num_hidden_layers)
    layers = _layers(reader, family, config.num_hidden_layers, types)
    if reader.get("sliding_window") is None:
        if types is not None and SLIDING in types:
            reader.fail("sliding_window", "a size, as layer_types has sliding_attention", None)
        return {}
    if not layers:
        return {}
    window = reader.size("sliding_window")
    if window >= config.max_position_embeddings:
        return {}
    if family.window == "none":
        hint = (
            f"if your inputs stay within {window} tokens, set it to null in a copy of the "
            "config.json: the model is then the same"
        )
        reader.refuse("sliding_window", hint=hint)
    return {"sliding_window": window, "sliding_layers": layers}


def _layer_types(reader: Fields, family: Family, layers: int) -> list[str] | None:
    types = reader.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list):
        reader.fail("layer_types", "an array", types)
    supported = (FULL, SLIDING) if family.window in _BY_TYPE else (FULL,)
    for kind in types:
        if kind not in supported:
            message = f"{reader.where}: layer_types has {show(kind)}, which is not supported"
            raise UsageError(message, hint=f"supported: {', '.join(supported)}")
    if len(types) != layers:
        reader.fail("layer_types", f"{layers} entries, one for each layer", len(types))
    return types


def _layers(reader: Fields, family: Family, count: int, types: list[str] | None) -> tuple[int, ...]:
    """Return the layers that slide if there is a window."""
    every = range(count)
    if family.window in ("qwen", "flag") and not reader.flag("use_sliding_window"):
        return ()
    if types is not None and family.window in _BY_TYPE:
        return tuple(layer for layer in every if types[layer] == SLIDING)
    if family.window == "qwen":
        first = reader.get("max_window_layers")
        if not is_int(first) or first < 0:
            reader.fail("max_window_layers", "an integer from 0", first)
        return tuple(every[first:])
    if family.window == "pattern":
        pattern = reader.size("sliding_window_pattern", default=6)
        return tuple(layer for layer in every if (layer + 1) % pattern)
    return tuple(every)


def window_keys(config: ModelConfig, family: Family) -> dict[str, Any]:
    """Return what ``config.json`` says of this, in Hugging Face's spelling."""
    window = config.sliding_window or None
    keys: dict[str, Any] = {"sliding_window": window} if family.window != "none" else {}
    if family.window in ("qwen", "flag"):
        keys["use_sliding_window"] = window is not None
    sliding = config.sliding_layers
    if family.window == "pattern" or (window and family.window == "qwen"):
        every = range(config.num_hidden_layers)
        keys["layer_types"] = [SLIDING if layer in sliding else FULL for layer in every]
    return keys
