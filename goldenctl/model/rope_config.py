"""RopeConfig: the rotary keys of ``config.json``, in both spellings, parsed or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from goldenctl.errors import DamagedError, UsageError
from goldenctl.families.keys import ROPE_TYPES
from goldenctl.model.fields import Fields, as_object, show


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding, with transformers' own key names.

    Only the fields of its ``rope_type`` are set; the others are None (see ROPE_TYPES).
    """

    rope_theta: float = 10000.0
    rope_type: str = "default"
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None


def read_rope(reader: Fields) -> RopeConfig:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (4)."""
    key = "rope_scaling" if reader.get("rope_scaling") else "rope_parameters"
    both = reader.get("rope_scaling") and reader.get("rope_parameters")
    if both and _without_theta(reader, "rope_scaling") != _without_theta(reader, "rope_parameters"):
        reader.fail("rope_scaling", "the same as rope_parameters", reader.get(key))
    data = dict(as_object(reader.get(key) or {}, f"{reader.where}: {key}"))
    theta = reader.get("rope_theta")
    if theta is not None and data.setdefault("rope_theta", theta) != theta:
        reader.fail("rope_theta", f"{show(data['rope_theta'])} as in {key}", theta)
    if "type" in data and data.setdefault("rope_type", data["type"]) != data["type"]:
        message = f"{reader.where}: {key} has both type and rope_type, and they differ"
        raise DamagedError(message)
    data.pop("type", None)
    if data.pop("partial_rotary_factor", None) not in (1, None):
        message = f"{reader.where}: {key}.partial_rotary_factor other than 1 is not supported"
        raise UsageError(message)
    positions = reader.size("max_position_embeddings")
    return parse_rope(Fields(data, reader.where, f"{key}."), positions)


def _without_theta(reader: Fields, key: str) -> dict[str, Any]:
    data = dict(as_object(reader.get(key), f"{reader.where}: {key}"))
    data.setdefault("rope_type", data.pop("type", "default"))
    return {k: v for k, v in data.items() if k != "rope_theta"}


def parse_rope(reader: Fields, positions: int | None) -> RopeConfig:
    """Parse a flat rope object; ``positions`` is transformers' default for the original length."""
    rope_type = reader.one_of("rope_type", reader.data.get("rope_type", "default"), ROPE_TYPES)
    required, optional = ROPE_TYPES[rope_type]
    for key in reader.data:
        if key not in required | optional | {"rope_type", "rope_theta"}:
            reader.refuse(key, hint=f"rope_type {rope_type} has no such key")
    values: dict[str, Any] = {"rope_type": rope_type}
    values["rope_theta"] = reader.positive("rope_theta", default=10000.0)
    if values["rope_theta"] <= 1.0:
        reader.fail("rope_theta", "a number above 1", values["rope_theta"])
    for key in required | (optional & reader.data.keys()):
        if key in optional and reader.data[key] is None:
            continue
        if key == "truncate":
            values[key] = reader.flag(key)
        elif key == "original_max_position_embeddings":
            values[key] = reader.size(key)
        else:
            values[key] = reader.positive(key)
    if "original_max_position_embeddings" in optional:
        values.setdefault("original_max_position_embeddings", positions)
    _check_rope_order(values, reader)
    return RopeConfig(**values)


def _check_rope_order(values: dict[str, Any], reader: Fields) -> None:
    if "low_freq_factor" in values and values["low_freq_factor"] >= values["high_freq_factor"]:
        low = values["low_freq_factor"]
        reader.fail("high_freq_factor", f"more than {low}", values["high_freq_factor"])
