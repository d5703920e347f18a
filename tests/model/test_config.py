"""Which configs are read, with which defaults, and which are refused, and how."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.families import FAMILIES, PRESETS
from goldenctl.model.config import (
    ModelConfig,
    load_config,
    parse_config,
    preset_config,
    to_hf_dict,
)
from goldenctl.model.recipe_config import config_from_recipe

QWEN3_06B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
LLAMA: dict[str, Any] = {"model_type": "llama"}
MISTRAL: dict[str, Any] = {"model_type": "mistral", "sliding_window": None}
GEMMA3: dict[str, Any] = {"model_type": "gemma3_text"}
MOE: dict[str, Any] = {"model_type": "qwen3_moe"}
PHI3: dict[str, Any] = {"model_type": "phi3"}


def test_published_config_equals_preset() -> None:
    assert parse_config(QWEN3_06B, where="c") == preset_config("qwen3-0.6b")


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trips(preset: str) -> None:
    config = preset_config(preset)
    assert config_from_recipe(json.loads(json.dumps(config.to_dict()))) == config
    assert parse_config(json.loads(json.dumps(to_hf_dict(config))), where="c") == config


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_transformers(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(family)
    ours = parse_config({"model_type": family}, where="c")
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        assert getattr(ours, key) == getattr(theirs, key), key
    for key in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    rope = theirs.rope_parameters
    assert ours.rope.rope_theta == rope.get("full_attention", rope)["rope_theta"]
    assert ours.sliding_window == (theirs.sliding_window if ours.sliding_layers else 0)
    head_dim = getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert ours.head_dim == head_dim
    full = json.loads(theirs.to_json_string(use_diff=False))
    assert parse_config(full, where="c") == ours


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_old_and_new_rope_spelling_agree(key: str) -> None:
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768}
    old = {**QWEN3_06B, "rope_scaling": {key: "yarn", **scaling}}
    new = {k: v for k, v in QWEN3_06B.items() if k not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6, **scaling}
    assert parse_config(old, where="c") == parse_config(new, where="c")


class Expect(NamedTuple):
    """``base`` with ``change`` is refused with exactly this ``message``: not supported, or a bad
    value."""

    base: dict[str, Any]
    change: dict[str, Any]
    message: str
    bad: bool = False

    @property
    def error(self) -> type[GoldenctlError]:
        return DamagedError if self.bad else UsageError


POSITIVE = "expected a number above 0 and up to 1e+12, got"
REFUSED = [
    Expect({}, {}, "model_type null is not supported; supported are gemma3_text, glm4, llama, mi"),
    Expect({"model_type": "gemma3"}, {}, 'model_type "gemma3" is not supported; supported are'),
    Expect({"model_type": ["qwen3"]}, {}, "model_type ['qwen3'] is not supported", True),
    Expect(QWEN3_06B, {"hidden_act": "gelu"}, 'hidden_act "gelu" is not supported'),
    Expect(QWEN3_06B, {"num_experts": 128}, "num_experts 128 is not supported"),
    Expect(MOE, {"num_experts": 0}, "num_experts: expected an integer from 1 to", True),
    Expect(MOE, {"num_local_experts": 4, "num_experts": 8}, "expected 8 as in num_experts", True),
    Expect(MOE, {"num_experts_per_tok": 129}, "expected at most num_experts 128, got 129", True),
    Expect(MOE, {"mlp_only_layers": 3}, "mlp_only_layers: expected an array of integers", True),
    Expect(MOE, {"shared_expert_gate": True}, 'key "shared_expert_gate" (value true) is not'),
    Expect(QWEN3_06B, {"num_experts_per_tok": 8}, 'key "num_experts_per_tok" (value 8) is not'),
    Expect(QWEN3_06B, {"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4} is"),
    Expect(QWEN3_06B, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not"),
    Expect(QWEN3_06B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not"),
    Expect(QWEN3_06B, {"pretraining_tp": 2}, "pretraining_tp 2 is not supported"),
    Expect(QWEN3_06B, {"a\nb": 1}, 'key "a\\nb" (value 1) is not known to goldenctl'),
    Expect(
        QWEN3_06B,
        {"hidden_size": 0},
        "hidden_size: expected an integer from 1 to 1048576, go",
        True,
    ),
    Expect(QWEN3_06B, {"hidden_size": 1024.0}, "got 1024.0", True),
    Expect(QWEN3_06B, {"hidden_size": True}, "got true", True),
    Expect(QWEN3_06B, {"vocab_size": 10**40}, "got an integer of more than 30 digits", True),
    Expect(
        QWEN3_06B, {"num_key_value_heads": 3}, "expected a multiple of num_key_value_heads 3,", True
    ),
    Expect(QWEN3_06B, {"head_dim": 127}, "head_dim: expected an even number, got 127", True),
    Expect(QWEN3_06B, {"rms_norm_eps": float("nan")}, f"rms_norm_eps: {POSITIVE} nan", True),
    Expect(QWEN3_06B, {"rms_norm_eps": 0}, f"rms_norm_eps: {POSITIVE} 0", True),
    Expect(QWEN3_06B, {"rms_norm_eps": "1e-6"}, f'rms_norm_eps: {POSITIVE} "1e-6"', True),
    Expect(QWEN3_06B, {"torch_dtype": "int8"}, "torch_dtype: expected one of bfloat16, float16, f"),
    Expect(
        QWEN3_06B,
        {"rope_scaling": {"type": "longrope"}},
        "rope_scaling.long_factor: expected an array of numbers above 0, got null",
        True,
    ),
    Expect(QWEN3_06B, {"rope_scaling": {"type": "axial"}}, "rope_scaling.rope_type: expected one"),
    Expect(
        QWEN3_06B,
        {"rope_scaling": {"type": "linear"}},
        f"rope_scaling.factor: {POSITIVE} null",
        True,
    ),
    Expect(QWEN3_06B, {"rope_scaling": [1]}, "rope_scaling: expected an object, got array", True),
    Expect(QWEN3_06B, {"rope_theta": 1}, "rope_theta: expected a number above 1, got 1.0", True),
    Expect(
        QWEN3_06B,
        {"rope_parameters": {"rope_theta": 5e5}},
        "rope_theta: expected 500000.0 as in r",
        True,
    ),
    Expect(
        QWEN3_06B,
        {"rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 3}},
        "rope_scaling.beta_fast 3 is not supported; rope_type linear has no such key",
    ),
    Expect(
        {"model_type": "llama"},
        {"sliding_window": 512},
        "sliding_window 512 is not supported; if your inputs stay within 512 tokens",
    ),
    Expect(MISTRAL, {"layer_types": ["sliding_attention"]}, 'layer_types has "sliding_attention"'),
    Expect(
        QWEN3_06B,
        {"layer_types": ["sliding_attention"] * 28},
        "sliding_window: expected a size, as layer_types has sliding_attention, got null",
        True,
    ),
    Expect(
        QWEN3_06B,
        {"layer_types": ["full_attention"] * 27},
        "layer_types: expected 28 entries, one for each layer, got 27",
        True,
    ),
    Expect({"model_type": "mistral", "sliding_window": "4"}, {}, "sliding_window: expected", True),
    Expect(GEMMA3, {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar: expected an inte", True),
    Expect(GEMMA3, {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0 is not"),
    Expect(GEMMA3, {"hidden_activation": "silu"}, 'hidden_activation "silu" is not supported'),
    Expect(GEMMA3, {"use_bidirectional_attention": True}, "use_bidirectional_attention true is"),
    Expect(
        GEMMA3,
        {"rope_parameters": {"chunked_attention": {}}},
        "rope_parameters.chunked_attention {} is not supported",
    ),
    Expect(
        GEMMA3,
        {"rope_parameters": {"sliding_attention": {"rope_theta": -1}}},
        f"rope_parameters.sliding_attention.rope_theta: {POSITIVE} -1",
        True,
    ),
    Expect(
        PHI3,
        {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}},
        "rope_parameters.short_factor: expected 48 numbers, one for each rotated pair, got 1",
        True,
    ),
    Expect(PHI3, {"partial_rotary_factor": 1.5}, "partial_rotary_factor: expected at most 1", True),
    Expect(PHI3, {"partial_rotary_factor": 0.01}, "partial_rotary_factor of head_dim: expec", True),
    Expect(MISTRAL, {"attention_bias": True}, "attention_bias true is not supported; mistral"),
    Expect({"model_type": "qwen2"}, {"attention_bias": False}, "attention_bias false is not"),
    Expect(
        QWEN3_06B, {"mlp_bias": True}, "mlp_bias true is not supported; qwen3 models have it fa"
    ),
    Expect(
        LLAMA, {"hidden_size": 100}, "hidden_size: expected a multiple of num_attention_heads", True
    ),
    Expect(
        LLAMA,
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8,
                "low_freq_factor": 4,
                "high_freq_factor": 1,
            }
        },
        "rope_scaling.high_freq_factor: expected more than 4.0, got 1.0",
        True,
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.message[:40])
def test_refused(case: Expect) -> None:
    with pytest.raises(case.error) as caught:
        parse_config({**case.base, **case.change}, where="config.json")
    assert str(caught.value).startswith("config.json: ")
    assert case.message in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28},
        {"use_sliding_window": True, "sliding_window": 40960, "max_window_layers": 0},
        {"sliding_window": 4096},
        {"layer_types": ["full_attention"] * 28},
    ],
)
def test_windows_that_hide_nothing_are_accepted(change: dict[str, Any]) -> None:
    assert parse_config({**QWEN3_06B, **change}, where="c") == preset_config("qwen3-0.6b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object, got array"),
        (b'{"model_type": "qwen3", "model_type": "llama"}', "duplicate key 'model_type'"),
        (b'{"rms_norm_eps": NaN}', "NaN is not JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (5 << 20), "larger than the 4194304 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(DamagedError, match=message):
        load_config(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no such file"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "change", [{"vocab_size": "x"}, {"extra": 1}, {"rope": 3}, {"model_type": "x"}, {"dtype": None}]
)
def test_bad_recipes_are_damage(change: dict[str, Any]) -> None:
    data = {**preset_config("tiny").to_dict(), **change}
    if change == {"dtype": None}:
        del data["dtype"]
    with pytest.raises(DamagedError, match="recipe: "):
        config_from_recipe(data)


@dataclass(frozen=True)
class Later(ModelConfig):
    """The config of a later version, with one field more."""

    later_size: int = 0


def test_a_later_field_changes_nothing_for_models_without_it() -> None:
    config = preset_config("tiny")
    later = Later(**{f.name: getattr(config, f.name) for f in fields(config)})
    assert later.to_dict() == config.to_dict()
    assert config_from_recipe(config.to_dict(), kind=Later) == later
    assert {"later_size": 0}.items() <= vars(later).items()


def test_a_key_of_a_later_version_is_refused_by_name_and_version() -> None:
    config = preset_config("tiny")
    used = Later(**{f.name: getattr(config, f.name) for f in fields(config)}, later_size=7)
    assert config_from_recipe(used.to_dict(), kind=Later) == used
    said = r'config key "later_size" is not known here; it was written by goldenctl 9\.1'
    with pytest.raises(DamagedError, match=said):
        config_from_recipe(used.to_dict(), written_by="9.1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(QWEN3_06B)), JSON)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    message = ""
    try:
        config = parse_config({**QWEN3_06B, key: value}, where="c")
        assert config_from_recipe(config.to_dict()) == config
    except GoldenctlError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 400


def test_all_problems_are_said_at_once() -> None:
    data = {
        **to_hf_dict(preset_config("tiny")),
        "foo_bar": 3,
        "hidden_size": "big",
        "rms_norm_eps": -1,
        "hidden_act": "gelu",
        "dtype": "int8",
    }
    with pytest.raises(DamagedError) as caught:
        parse_config(data, where="config.json")
    said = str(caught.value)
    assert said.count("config.json: ") == 1
    places = [said.index(key) for key in ("hidden_act", "foo_bar", "hidden_size", "rms_norm_eps")]
    assert places == sorted(places)
    assert 'dtype: expected one of bfloat16, float16, float32, float64, got "int8"' in said
    assert "num_attention_heads" not in said  # nothing is said of what stands in for a bad value
    many = {**data, **{f"foo{number}": number for number in range(9)}}
    with pytest.raises(DamagedError, match=r"; and 9 more$"):
        parse_config(many, where="config.json")
