"""ModelConfig: ``config.json`` parsed into a frozen dataclass, or refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.families import FAMILIES, PRESETS
from goldenctl.families.family import Family
from goldenctl.families.keys import HARMLESS_KEYS, HARMLESS_VALUES, READ_KEYS
from goldenctl.model.fields import Fields, as_object, is_int, show
from goldenctl.model.jsonfile import read_object
from goldenctl.model.problems import Problems
from goldenctl.model.rope_config import RopeConfig, parse_rope, read_rope

__all__ = ["WEIGHT_DTYPES", "ModelConfig", "RopeConfig", "load_config", "parse_config"]

CONFIG_LIMIT_BYTES = 4 << 20
_OWN_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
WEIGHT_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class ModelConfig:
    """A dense decoder, with Hugging Face's key names; every default is filled in.

    A field that is added later has a default, which leaves models that do not use it as they
    were: it is neither stored in goldens nor part of fingerprints.

    ``attention_bias`` is the bias of q, k and v; ``attention_output_bias`` that of o_proj;
    ``dtype`` is ``torch_dtype`` of the checkpoint (float32 when it does not say).
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    tie_word_embeddings: bool
    attention_bias: bool
    attention_output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict for recipes and fingerprints, without fields that are as their
        default and rope fields that are None."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = dataclasses.asdict(self).items()
        result = {name: value for name, value in given if value != defaults[name]}
        result["rope"] = {k: v for k, v in result["rope"].items() if v is not None}
        return result

    @classmethod
    def from_dict(
        cls, data: object, *, where: str = "recipe", written_by: str = "another version"
    ) -> Self:
        """Return the config that ``to_dict`` wrote; DamagedError when it is not one.

        A key of a later version is refused, naming the one that wrote it: the model is another.
        """
        try:
            reader = Fields(as_object(data, where), where)
            _refuse_later_keys(cls, reader, written_by)
            return cls(**_from_recipe(cls, reader, where))
        except DamagedError:
            raise
        except GoldenctlError as error:
            raise DamagedError(error.message, hint=error.hint) from error

    def to_hf_dict(self) -> dict[str, Any]:
        """Return the ``config.json`` of this model in Hugging Face's spelling."""
        family = FAMILIES[self.model_type]
        result = dataclasses.asdict(self)
        for derived in ("rope", "attention_output_bias", "qk_norm"):
            del result[derived]
        if family.qkv_bias != "attention_bias":
            del result["attention_bias"]
        if family.mlp_bias != "mlp_bias":
            del result["mlp_bias"]
        if family.window == "always":
            result["sliding_window"] = None
        rope = {k: v for k, v in dataclasses.asdict(self.rope).items() if v is not None}
        return {
            "architectures": [f"{family.architecture}ForCausalLM"],
            **result,
            "hidden_act": "silu",
            "rope_parameters": rope,
            # transformers before 5 reads these two instead
            "rope_theta": self.rope.rope_theta,
            "rope_scaling": None if self.rope.rope_type == "default" else rope,
        }


def load_config(folder: str | Path) -> ModelConfig:
    """Return the config of the checkpoint in ``folder``.

    Raises MissingError without ``config.json``, DamagedError when it is not JSON, and as
    ``parse_config`` does.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        message = f"{path}: there is no such file"
        hint = "a checkpoint is a folder with config.json and *.safetensors"
        raise MissingError(message, hint=hint)
    return parse_config(read_object(path, limit_bytes=CONFIG_LIMIT_BYTES), where=str(path))


def parse_config(data: dict[str, Any], *, where: str) -> ModelConfig:
    """Return the config that a ``config.json`` object describes; ``where`` names it in errors.

    Raises DamagedError for values of the wrong kind or that contradict each other, else
    UsageError for what is not supported, with all of both at once.
    """
    model_type = data.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None or not isinstance(model_type, str):
        message = f"{where}: model_type {show(model_type)} is not supported"
        named = model_type is None or isinstance(model_type, str)
        raise (UsageError if named else DamagedError)(
            message, hint=f"supported are {', '.join(FAMILIES)}"
        )
    reader = Fields({**family.defaults, **data}, where)
    problems = Problems(_unknown_keys(data, where))
    sizes: dict[str, Any] = {n: problems.tried(partial(reader.size, n), 1) for n in _OWN_SIZES}
    heads, hidden = sizes["num_attention_heads"], sizes["hidden_size"]
    flags = {
        "tie_word_embeddings": partial(reader.flag, "tie_word_embeddings"),
        "attention_bias": partial(_bias, family.qkv_bias, "attention_bias", reader),
        "attention_output_bias": partial(
            _bias, family.output_bias, "attention_output_bias", reader
        ),
        "mlp_bias": partial(_bias, family.mlp_bias, "mlp_bias", reader),
    }
    config = ModelConfig(
        model_type=model_type,
        **sizes,
        num_key_value_heads=problems.tried(
            partial(reader.size, "num_key_value_heads", default=heads), heads
        ),
        head_dim=problems.tried(partial(_head_dim, reader, hidden, heads), 2),
        rms_norm_eps=problems.tried(partial(reader.positive, "rms_norm_eps", default=1e-6), 1.0),
        rope=problems.tried(partial(read_rope, reader), RopeConfig()),
        **{name: problems.tried(read, False) for name, read in flags.items()},
        qk_norm=family.qk_norm,
        dtype=problems.tried(partial(_dtype, reader), "float32"),
    )
    problems.tried(partial(_check_bias_keys, reader, config, family), None)
    if not problems.of_values:  # else it would complain of what stands in for them
        problems.tried(partial(_check_attention, config, where), None)
        problems.tried(partial(_refuse_sliding_window, reader, family, config), None)
    problems.raise_all(where)
    return config


def preset_config(preset: str) -> ModelConfig:
    """Return the config of a preset; KeyError when there is none of that name."""
    return parse_config(PRESETS[preset], where=f"preset {preset}")


def _unknown_keys(data: dict[str, Any], where: str) -> Iterator[UsageError]:
    """Yield an error for each key that may change the model and is not known to be harmless."""
    for key, value in data.items():
        if key in READ_KEYS or key in HARMLESS_KEYS:
            continue
        if key not in HARMLESS_VALUES:
            message = f"{where}: key {show(key)} (value {show(value)}) is not known to goldenctl"
            hint = "it may change the model; remove it from config.json if it does not"
            yield UsageError(message, hint=hint)
            continue
        allowed = HARMLESS_VALUES[key]
        if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
            message = f"{where}: {key} {show(value)} is not supported"
            yield UsageError(message, hint=f"supported: {' or '.join(show(a) for a in allowed)}")


def _head_dim(reader: Fields, hidden: int, heads: int) -> int:
    if reader.get("head_dim") is not None:
        return reader.size("head_dim")
    if hidden % heads:
        what = f"a multiple of num_attention_heads {heads} (there is no head_dim)"
        reader.fail("hidden_size", what, hidden)
    return hidden // heads


def _dtype(reader: Fields) -> str:
    key = "dtype" if reader.get("dtype") is not None else "torch_dtype"
    value = reader.get(key)
    if value is None:
        return "float32"
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    return reader.one_of(key, name, (*WEIGHT_DTYPES, "float64"))


def _bias(rule: bool | str, key: str, reader: Fields) -> bool:
    return rule if isinstance(rule, bool) else reader.flag(rule)


def _check_bias_keys(reader: Fields, config: ModelConfig, family: Family) -> None:
    """Refuse a bias key that the family's modeling code ignores and that says otherwise."""
    for key, rule in (("attention_bias", family.qkv_bias), ("mlp_bias", family.mlp_bias)):
        if isinstance(rule, bool) and reader.flag(key, default=rule) != rule:
            reader.refuse(key, hint=f"{config.model_type} models have it {show(rule)}")


def _check_attention(config: ModelConfig, where: str) -> None:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        message = (
            f"{where}: num_attention_heads: expected a multiple of num_key_value_heads "
            f"{kv_heads}, got {heads}"
        )
        raise DamagedError(message)
    if config.head_dim % 2:
        message = f"{where}: head_dim: expected an even number, got {config.head_dim}"
        raise DamagedError(message)


def _refuse_sliding_window(reader: Fields, family: Family, config: ModelConfig) -> None:
    """Refuse a window that some token of an allowed length would feel.

    A window of at least ``max_position_embeddings`` tokens hides nothing and is accepted.
    """
    layer_types = reader.get("layer_types")
    if layer_types is not None:
        if not isinstance(layer_types, list):
            reader.fail("layer_types", "an array", layer_types)
        for kind in layer_types:
            if kind != "full_attention":
                message = f"{reader.where}: layer_types has {show(kind)}, which is not supported"
                raise UsageError(message, hint="supported: full_attention")
        if len(layer_types) != config.num_hidden_layers:
            expected = f"{config.num_hidden_layers} entries, one for each layer"
            reader.fail("layer_types", expected, len(layer_types))
    if reader.get("sliding_window") is None or not _window_used(reader, family, config):
        return
    window = reader.size("sliding_window")
    if window < config.max_position_embeddings:
        hint = (
            f"if your inputs stay within {window} tokens, set it to null in a copy of the "
            "config.json: the model is then the same"
        )
        reader.refuse("sliding_window", hint=hint)


def _window_used(reader: Fields, family: Family, config: ModelConfig) -> bool:
    if family.window != "qwen":
        return True  # "none": the family has no window, so one that is asked for is refused
    if not reader.flag("use_sliding_window") or reader.get("layer_types") is not None:
        return False
    first = reader.get("max_window_layers")
    if not is_int(first) or first < 0:
        reader.fail("max_window_layers", "an integer from 0", first)
    return bool(first < config.num_hidden_layers)


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
    rope = as_object(reader.data["rope"], f"{where}: rope")
    readers = {"bool": reader.flag, "int": reader.size, "float": reader.positive}
    values: dict[str, Any] = {
        field.name: readers.get(str(field.type), reader.text)(field.name)
        for field in fields
        if field.name in reader.data and field.name != "rope"
    }
    values["rope"] = parse_rope(Fields(rope, where, "rope."), values["max_position_embeddings"])
    values["dtype"] = _dtype(reader)
    _check_attention(kind(**values), where)
    return values
