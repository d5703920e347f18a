"""Owns the parameter names and shapes of a checkpoint: Hugging Face's."""

from __future__ import annotations

from goldenctl.model.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every parameter that a forward pass reads, in execution order, with its shape.

    Linear weights are ``[out, in]``. With tied embeddings there is no ``lm_head.weight``.
    """
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes[LM_HEAD] = (config.vocab_size, hidden)
    return shapes


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q_out = config.num_attention_heads * config.head_dim
    kv_out = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (hidden,)}
    for name, out, in_, bias in (
        ("self_attn.q_proj", q_out, hidden, config.attention_bias),
        ("self_attn.k_proj", kv_out, hidden, config.attention_bias),
        ("self_attn.v_proj", kv_out, hidden, config.attention_bias),
        ("self_attn.o_proj", hidden, q_out, config.attention_output_bias),
    ):
        shapes |= _linear(name, (out, in_), bias)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    shapes["post_attention_layernorm.weight"] = (hidden,)
    shapes |= _linear("mlp.gate_proj", (inner, hidden), config.mlp_bias)
    shapes |= _linear("mlp.up_proj", (inner, hidden), config.mlp_bias)
    shapes |= _linear("mlp.down_proj", (hidden, inner), config.mlp_bias)
    return shapes


def _linear(name: str, shape: tuple[int, int], bias: bool) -> dict[str, tuple[int, ...]]:
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if bias else {**weight}
