"""ModelConfig: what is known of a model, as its ``config.json`` and its family say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


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
    partial_rotary_factor: float | None = None
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON has them."""
        given = dataclasses.asdict(self).items()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in given if v is not None}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder, with Hugging Face's key names; every default is filled in.

    A field that is added later has a default, which leaves models that do not use it as they
    were: it is neither stored in goldens nor part of fingerprints.

    ``attention_bias`` is the bias of q, k and v; ``attention_output_bias`` that of o_proj;
    ``dtype`` is ``torch_dtype`` of the checkpoint (float32 when it does not say).
    ``sliding_layers`` see the last ``sliding_window`` tokens alone; their rotary embedding is
    ``rope_local`` where they have one of their own. Scores are scaled by
    ``query_pre_attn_scalar`` ** -0.5, 0 stands for ``head_dim``. Where there are experts, all
    layers but the ``dense_layers`` have ``num_experts``, of which each token has
    ``num_experts_per_tok``.
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
    sliding_window: int = 0
    sliding_layers: tuple[int, ...] = ()
    rope_local: RopeConfig | None = None
    query_pre_attn_scalar: int = 0
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    dense_layers: tuple[int, ...] = ()

    @property
    def rotary_dim(self) -> int:
        """How many elements of a head are rotated, or left as they are by tables that say so."""
        factor = self.rope.partial_rotary_factor
        whole = factor is None or self.rope.rope_type == "proportional"
        return self.head_dim if whole or factor is None else int(self.head_dim * factor)

    @property
    def attention_scale(self) -> float:
        """What queries times keys are multiplied by."""
        return float((self.query_pre_attn_scalar or self.head_dim) ** -0.5)

    def window(self, layer: int) -> int:
        """How many tokens a layer's query sees, its own included; 0 for all before it."""
        return self.sliding_window if layer in self.sliding_layers else 0

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict for recipes and fingerprints, without fields that are as their
        default and rope fields that are None."""
        result: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                plain = value.to_dict() if isinstance(value, RopeConfig) else value
                result[field.name] = list(plain) if isinstance(plain, tuple) else plain
        return result
