"""A ModelConfig as a recipe keeps it, read again; what it stores is ``ModelConfig.to_dict``."""

from __future__ import annotations

import dataclasses
from typing import Any

from goldenctl.errors import DamagedError, GoldenctlError
from goldenctl.families import FAMILIES
from goldenctl.graph.config import ModelConfig
from goldenctl.model.config import check_attention, read_dtype
from goldenctl.model.fields import Fields, as_object, is_int, show
from goldenctl.model.rope_config import parse_rope


def config_from_recipe(
    data: object,
    *,
    where: str = "recipe",
    written_by: str = "another version",
    kind: type[ModelConfig] = ModelConfig,
) -> ModelConfig:
    """Return the config that ``to_dict`` wrote; DamagedError when it is not one.

    A key of a later version is refused, naming the one that wrote it: the model is another.
    """
    try:
        reader = Fields(as_object(data, where), where)
        _refuse_later_keys(kind, reader, written_by)
        return kind(**_from_recipe(kind, reader, where))
    except DamagedError:
        raise
    except GoldenctlError as error:
        raise DamagedError(error.message, hint=error.hint) from error


def _refuse_later_keys(kind: type[ModelConfig], reader: Fields, written_by: str) -> None:
    later = sorted(set(reader.data) - {field.name for field in dataclasses.fields(kind)})
    if later:
        message = (
            f"{reader.where}: config key {show(', '.join(later))} is not known here; it was "
            f"written by goldenctl {written_by}"
        )
        raise DamagedError(message, hint="read it with that version or a later one")


def _from_recipe(kind: type[ModelConfig], reader: Fields, where: str) -> dict[str, Any]:
    """Read what ``to_dict`` wrote, and the family's facts as they are here."""
    fields = dataclasses.fields(kind)
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    if missing := sorted(needed - set(reader.data)):
        message = f"{where}: missing config keys {show(', '.join(missing))}"
        raise DamagedError(message)
    if reader.data["model_type"] not in FAMILIES:
        reader.refuse("model_type")
    values = {f.name: _value(reader, f) for f in fields if f.name in reader.data}
    positions = values["max_position_embeddings"]
    for name in ("rope", "rope_local"):
        if name in reader.data:
            rope = as_object(reader.data[name], f"{where}: {name}")
            values[name] = parse_rope(Fields(rope, where, f"{name}."), positions)
    values["dtype"] = read_dtype(reader)
    check_attention(kind(**values), where)
    return values


def _value(reader: Fields, field: dataclasses.Field[Any]) -> Any:
    """Read a field by its type; what is read apart is as it is."""
    readers = {"bool": reader.flag, "int": reader.size, "float": reader.positive}
    kind, value = str(field.type), reader.get(field.name)
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not all(is_int(x) and x >= 0 for x in value):
            reader.fail(field.name, "an array of integers from 0", value)
        return tuple(value)
    if kind.startswith("RopeConfig"):
        return value
    return readers.get(kind, reader.text)(field.name)
