"""``config.json`` parsed into a ModelConfig, or refused by name, and written again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.families import FAMILIES, PRESETS
from goldenctl.families.family import Family
from goldenctl.families.keys import HARMLESS_KEYS, HARMLESS_VALUES, READ_KEYS
from goldenctl.graph.config import ModelConfig, RopeConfig
from goldenctl.model.experts import KEYS as EXPERTS_KEYS
from goldenctl.model.experts import experts_keys, read_experts
from goldenctl.model.fields import Fields, show
from goldenctl.model.jsonfile import read_object
from goldenctl.model.problems import Problems
from goldenctl.model.rope_config import check_rotary, read_ropes, rope_keys
from goldenctl.model.windows import read_windows, window_keys

__all__ = [
    "WEIGHT_DTYPES", "ModelConfig", "RopeConfig", "load_config", "parse_config", "preset_config",
    "to_hf_dict",
]  # fmt: skip

CONFIG_LIMIT_BYTES = 4 << 20
_OWN_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
# Sizes that only some families have, which name them among their keys.
_FURTHER = ("query_pre_attn_scalar",)
WEIGHT_DTYPES = ("bfloat16", "float16", "float32")


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
    problems = Problems(_unknown_keys(data, family, where))
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
    no_rope: tuple[RopeConfig, RopeConfig | None] = (RopeConfig(), None)
    rope, local = problems.tried(partial(read_ropes, reader, family), no_rope)
    further = [name for name in _FURTHER if name in family.keys]
    given: dict[str, Any] = {
        **sizes,
        **{name: problems.tried(read, False) for name, read in flags.items()},
        **{name: problems.tried(partial(reader.size, name), 1) for name in further},
    }
    config = ModelConfig(
        model_type=model_type,
        num_key_value_heads=problems.tried(
            partial(reader.size, "num_key_value_heads", default=heads), heads
        ),
        head_dim=problems.tried(partial(_head_dim, reader, hidden, heads), 2),
        rms_norm_eps=problems.tried(partial(reader.positive, "rms_norm_eps", default=1e-6), 1.0),
        rope=rope,
        rope_local=local,
        qk_norm=family.qk_norm,
        dtype=problems.tried(partial(read_dtype, reader), "float32"),
        **given,
    )
    problems.tried(partial(_check_bias_keys, reader, config, family), None)
    if not problems.of_values:  # else it would complain of what stands in for them
        problems.tried(partial(check_attention, config, where), None)
        nothing: dict[str, Any] = {}
        if family.experts:
            read = partial(read_experts, reader, config.num_hidden_layers, data)
            config = replace(config, **problems.tried(read, nothing))
        windows = problems.tried(partial(read_windows, reader, family, config), nothing)
        config = replace(config, **windows)
    problems.raise_all(where)
    return config


def to_hf_dict(config: ModelConfig) -> dict[str, Any]:
    """Return the ``config.json`` of this model in Hugging Face's spelling."""
    family = FAMILIES[config.model_type]
    fields = dataclasses.fields(config)
    result = {f.name: getattr(config, f.name) for f in fields if f.default is dataclasses.MISSING}
    result |= {key: getattr(config, key) for key in _FURTHER if key in family.keys}
    for derived in ("rope", "attention_output_bias", "qk_norm"):
        del result[derived]
    if family.qkv_bias != "attention_bias":
        del result["attention_bias"]
    if family.mlp_bias != "mlp_bias":
        del result["mlp_bias"]
    return {
        "architectures": [f"{family.architecture}ForCausalLM"],
        **result,
        **({key: values[0] for key, values in family.values.items()} or {"hidden_act": "silu"}),
        "pad_token_id": None,  # a family's default may lie beyond a small vocabulary
        **(experts_keys(config) if family.experts else {}),
        **window_keys(config, family),
        **rope_keys(config, family),
    }


def preset_config(preset: str) -> ModelConfig:
    """Return the config of a preset; KeyError when there is none of that name."""
    return parse_config(PRESETS[preset], where=f"preset {preset}")


def _unknown_keys(data: dict[str, Any], family: Family, where: str) -> Iterator[UsageError]:
    """Yield an error for each key that may change the model and is not known to be harmless."""
    harmless = {**HARMLESS_VALUES, **family.values}
    known = family.keys | (EXPERTS_KEYS if family.experts else frozenset())
    for key, value in data.items():
        if key in READ_KEYS or key in HARMLESS_KEYS or key in known:
            continue
        if key not in harmless:
            message = f"{where}: key {show(key)} (value {show(value)}) is not known to goldenctl"
            hint = "it may change the model; remove it from config.json if it does not"
            yield UsageError(message, hint=hint)
            continue
        allowed = harmless[key]
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


def read_dtype(reader: Fields) -> str:
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


def check_attention(config: ModelConfig, where: str) -> None:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        message = (
            f"{where}: num_attention_heads: expected a multiple of num_key_value_heads "
            f"{kv_heads}, got {heads}"
        )
        raise DamagedError(message)
    check_rotary(config, where)
