"""What a family of models is: data that its own module fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from goldenctl.graph.blocks import Style


@dataclass(frozen=True)
class Family:
    """What the modeling code of one ``model_type`` does, and its config class's defaults.

    ``architecture`` is the class that ``config.json`` names, without ``ForCausalLM``. The
    biases of q, k and v, of o_proj and of the MLP are True or False where the modeling code fixes
    them, or the config key that decides. ``window`` is a rule of ``model.windows``: which layers
    slide. ``style`` says what the layers are made of.
    ``defaults`` fills keys that ``config.json`` leaves out, ``keys`` are those that this family
    reads beside those that all do, ``values`` those that are harmless with these values only.
    ``partial_rotary`` is the default of ``partial_rotary_factor``, None where the modeling code
    has no such thing; ``rope_names`` are further names of rope types; ``theta`` is the default of
    rope_theta, ``local_theta`` that of sliding layers with tables of their own.
    ``fused`` names modules that are stored as one, rows after rows, by the stored module.
    With ``experts`` the keys of ``model.experts`` are read.
    ``presets`` are shapes of synthetic checkpoints, as in ``config.json``: a tiny one has what
    is special to the family.
    """

    architecture: str
    defaults: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]]
    style: Style = field(default_factory=Style)
    qk_norm: bool = False
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    window: str = "none"
    keys: frozenset[str] = frozenset()
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rope_names: Mapping[str, str] = field(default_factory=dict)
    theta: float = 10000.0
    local_theta: float | None = None
    partial_rotary: float | None = None
    experts: bool = False
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "dtype": "bfloat16",
}
LLAMA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
QWEN_DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
