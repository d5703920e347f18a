"""The rotary keys of ``config.json``, in both spellings, parsed or refused."""

from __future__ import annotations

from typing import Any

from goldenctl.errors import DamagedError, UsageError
from goldenctl.families.family import Family
from goldenctl.families.keys import ROPE_TYPES
from goldenctl.graph.config import ModelConfig, RopeConfig
from goldenctl.model.fields import Fields, as_object, is_number, show

# The keys of nested rope_parameters, one for each kind of layer.
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def read_ropes(reader: Fields, family: Family) -> tuple[RopeConfig, RopeConfig | None]:
    """Read the rotary embedding of the model, and that of its sliding layers where the family
    has one for them."""
    if family.local_theta is None:
        return read_rope(reader, family), None
    nested = reader.get("rope_parameters")
    if nested is None:
        nested = {
            _GLOBAL: {"rope_theta": reader.get("rope_theta"), **(reader.get("rope_scaling") or {})},
            _LOCAL: {"rope_theta": reader.get("rope_local_base_freq")},
        }
    nested = as_object(nested, f"{reader.where}: rope_parameters")
    if unknown := set(nested) - {_GLOBAL, _LOCAL}:
        key = min(unknown)
        message = f"{reader.where}: rope_parameters.{key} {show(nested[key])} is not supported"
        raise UsageError(message, hint=f"it has {_GLOBAL} and {_LOCAL}")
    found = []
    for key, theta in ((_GLOBAL, family.theta), (_LOCAL, family.local_theta)):
        where = f"rope_parameters.{key}"
        data = dict(as_object(nested.get(key) or {}, f"{reader.where}: {where}"))
        if data.get("rope_theta") is None:
            data["rope_theta"] = theta
        found.append(_parsed(reader, family, data, f"{where}."))
    return found[0], found[1]


def read_rope(reader: Fields, family: Family) -> RopeConfig:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (4)."""
    key = "rope_scaling" if reader.get("rope_scaling") else "rope_parameters"
    both = reader.get("rope_scaling") and reader.get("rope_parameters")
    if both and _without_theta(reader, "rope_scaling") != _without_theta(reader, "rope_parameters"):
        reader.fail("rope_scaling", "the same as rope_parameters", reader.get(key))
    data = dict(as_object(reader.get(key) or {}, f"{reader.where}: {key}"))
    theta = reader.get("rope_theta")
    if theta is not None and data.setdefault("rope_theta", theta) != theta:
        reader.fail("rope_theta", f"{show(data['rope_theta'])} as in {key}", theta)
    data.setdefault("rope_theta", family.theta)
    return _parsed(reader, family, data, f"{key}.")


def _parsed(reader: Fields, family: Family, data: dict[str, Any], prefix: str) -> RopeConfig:
    """Parse a flat rope object with what stands beside it in ``config.json``."""
    if "type" in data and data.setdefault("rope_type", data["type"]) != data["type"]:
        message = f"{reader.where}: {prefix[:-1]} has both type and rope_type, and they differ"
        raise DamagedError(message)
    data.pop("type", None)
    if data.get("rope_type") in family.rope_names:
        data["rope_type"] = family.rope_names[data["rope_type"]]
    _add_partial_factor(reader, family, data, prefix)
    positions = reader.size("max_position_embeddings")
    original = reader.get("original_max_position_embeddings")
    optional = ROPE_TYPES.get(str(data.get("rope_type")), ((), ()))[1]
    if original is not None and "original_max_position_embeddings" in optional:
        data["original_max_position_embeddings"] = original
    return parse_rope(Fields(data, reader.where, prefix), positions)


def _add_partial_factor(reader: Fields, family: Family, data: dict[str, Any], prefix: str) -> None:
    """Put the factor where it means something, and refuse it where the family has none."""
    beside = reader.get("partial_rotary_factor")
    factor = data.pop("partial_rotary_factor", None)
    factor = next((x for x in (factor, beside, family.partial_rotary) if x is not None), 1)
    if factor == 1:
        return
    if family.partial_rotary is None and data.get("rope_type") != "proportional":
        message = f"{reader.where}: {prefix}partial_rotary_factor other than 1 is not supported"
        raise UsageError(message)
    data["partial_rotary_factor"] = factor


def _without_theta(reader: Fields, key: str) -> dict[str, Any]:
    data = dict(as_object(reader.get(key), f"{reader.where}: {key}"))
    data.setdefault("rope_type", data.pop("type", "default"))
    return {k: v for k, v in data.items() if k != "rope_theta"}


def parse_rope(reader: Fields, positions: int | None) -> RopeConfig:
    """Parse a flat rope object; ``positions`` is transformers' default for the original length."""
    rope_type = reader.one_of("rope_type", reader.data.get("rope_type", "default"), ROPE_TYPES)
    required, optional = ROPE_TYPES[rope_type]
    for key in reader.data:
        if key not in required | optional | {"rope_type", "rope_theta", "partial_rotary_factor"}:
            reader.refuse(key, hint=f"rope_type {rope_type} has no such key")
    values: dict[str, Any] = {"rope_type": rope_type}
    values["rope_theta"] = reader.positive("rope_theta", default=10000.0)
    if values["rope_theta"] <= 1.0:
        reader.fail("rope_theta", "a number above 1", values["rope_theta"])
    if reader.get("partial_rotary_factor") is not None:
        values["partial_rotary_factor"] = reader.positive("partial_rotary_factor")
        if values["partial_rotary_factor"] > 1:
            reader.fail("partial_rotary_factor", "at most 1", reader.get("partial_rotary_factor"))
    for key in sorted(required | (optional & reader.data.keys())):
        if key in optional and reader.data[key] is None:
            continue
        values[key] = _value(reader, key)
    if "original_max_position_embeddings" in optional:
        values.setdefault("original_max_position_embeddings", positions)
    _check_rope_order(values, reader)
    return RopeConfig(**values)


def _value(reader: Fields, key: str) -> Any:
    if key == "truncate":
        return reader.flag(key)
    if key == "original_max_position_embeddings":
        return reader.size(key)
    if key in ("short_factor", "long_factor"):
        return _factors(reader, key)
    return reader.positive(key)


def _factors(reader: Fields, key: str) -> tuple[float, ...]:
    values = reader.get(key)
    if not isinstance(values, list) or not all(is_number(x) and x > 0 for x in values):
        reader.fail(key, "an array of numbers above 0", values)
    return tuple(float(x) for x in values)


def _check_rope_order(values: dict[str, Any], reader: Fields) -> None:
    if "low_freq_factor" in values and values["low_freq_factor"] >= values["high_freq_factor"]:
        low = values["low_freq_factor"]
        reader.fail("high_freq_factor", f"more than {low}", values["high_freq_factor"])


def check_rotary(config: ModelConfig, where: str) -> None:
    """Raise DamagedError where as much of a head as is rotated does not come in pairs, or
    longrope has not a factor for each pair."""
    rotary = config.rotary_dim
    if rotary % 2 or rotary == 0:
        what = "head_dim" if rotary == config.head_dim else "partial_rotary_factor of head_dim"
        message = f"{where}: {what}: expected an even number, got {rotary}"
        raise DamagedError(message)
    for key in ("short_factor", "long_factor"):
        factors = getattr(config.rope, key)
        if factors is not None and len(factors) != rotary // 2:
            message = (
                f"{where}: rope_parameters.{key}: expected {rotary // 2} numbers, one for each "
                f"rotated pair, got {len(factors)}"
            )
            raise DamagedError(message)


def rope_keys(config: ModelConfig, family: Family) -> dict[str, Any]:
    """Return what ``config.json`` says of this, in Hugging Face's spelling."""
    rope = config.rope.to_dict()
    if config.rope.partial_rotary_factor is None and family.partial_rotary not in (None, 1):
        rope["partial_rotary_factor"] = 1.0
    if config.rope_local is not None:
        return {"rope_parameters": {_GLOBAL: rope, _LOCAL: config.rope_local.to_dict()}}
    original = config.rope.original_max_position_embeddings
    beside = original is not None and "original_max_position_embeddings" in family.keys
    return {
        **({"original_max_position_embeddings": original} if beside else {}),
        "rope_parameters": rope,
        # transformers before 5 reads these two instead
        "rope_theta": config.rope.rope_theta,
        "rope_scaling": None if config.rope.rope_type == "default" else rope,
    }
