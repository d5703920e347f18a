"""How engines call the golden's tensors: endings of a dump's names, the likeliest first.

The names are those that Hugging Face modules have under a forward hook (vLLM's and SGLang's are
the same, with q, k, v and gate, up fused), and those of llama.cpp's graph.
"""

from __future__ import annotations

QKV = ("head*head_dim", "kv_head*head_dim", "kv_head*head_dim")
GATE_UP = ("intermediate", "intermediate")

# By the golden's sublayer and tap.
ENDINGS: dict[str, tuple[str, ...]] = {
    "embedding.output": ("embed_tokens", "wte", "inp_embd", "embeddings", "embedding"),
    "final_norm.output": ("model.norm", "ln_f", "result_norm", "final_norm", "norm"),
    "lm_head.output": ("lm_head", "logits", "result_output"),
    "attention.input_layernorm": ("input_layernorm", "ln_1", "attn_norm-{layer}"),
    "attention.q_proj": ("q_proj", "wq", "q", "Qcur-{layer}"),
    "attention.k_proj": ("k_proj", "wk", "k", "Kcur-{layer}"),
    "attention.v_proj": ("v_proj", "wv", "v", "Vcur-{layer}"),
    "attention.value": ("v_proj", "wv", "v", "Vcur-{layer}"),
    "attention.q_norm": ("q_norm", "Qcur_normed-{layer}"),
    "attention.k_norm": ("k_norm", "Kcur_normed-{layer}"),
    "attention.q_rope": ("q_rope", "rotary_emb.0", "rotary_emb.q", "Qcur_rope-{layer}"),
    "attention.k_rope": ("k_rope", "rotary_emb.1", "rotary_emb.k", "Kcur_rope-{layer}"),
    "attention.key": ("k_rope", "rotary_emb.1", "rotary_emb.k", "Kcur_rope-{layer}"),
    "attention.scores": ("scores", "kq-{layer}"),
    "attention.probs": ("probs", "attn_weights", "kq_soft_max-{layer}", "kq_soft_max_ext-{layer}"),
    "attention.context": (
        "self_attn.attn", "attn.core", "context", "o_proj.input", "kqv_out-{layer}",
    ),
    "attention.o_proj": ("o_proj", "self_attn", "wo", "attn_out-{layer}", "attention"),
    # vLLM's norms add the residual first and yield the sum second.
    "attention.output": (
        "post_attention_layernorm.1", "post_attention_layernorm.input", "attention_output",
        "ffn_inp-{layer}",
    ),
    "mlp.post_attention_layernorm": ("post_attention_layernorm", "ln_2", "ffn_norm-{layer}"),
    "mlp.gate_proj": ("gate_proj", "w1", "ffn_gate-{layer}"),
    "mlp.up_proj": ("up_proj", "w3", "ffn_up-{layer}"),
    "mlp.swiglu": ("swiglu", "down_proj.input", "ffn_swiglu-{layer}", "ffn_gate_par-{layer}"),
    "mlp.down_proj": ("down_proj", "mlp", "w2", "ffn_out-{layer}"),
    "mlp.output": (
        "layers.{layer}", "layer.{layer}", "layers_{layer}", "layer_{layer}", "layer{layer}",
        "layer-{layer}", "h.{layer}", "blk.{layer}", "blocks.{layer}", "block_{layer}",
        "l_out-{layer}", "layer_output",
    ),
}  # fmt: skip
# What several taps come fused as: endings, the parts, which of them.
FUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "attention.q_proj": (("qkv_proj", "c_attn", "qkv", "wqkv", "query_key_value"), QKV, 0),
    "attention.k_proj": (("qkv_proj", "c_attn", "qkv", "wqkv", "query_key_value"), QKV, 1),
    "attention.v_proj": (("qkv_proj", "c_attn", "qkv", "wqkv", "query_key_value"), QKV, 2),
    "attention.value": (("qkv_proj", "c_attn", "qkv", "wqkv", "query_key_value"), QKV, 2),
    "mlp.gate_proj": (("gate_up_proj", "w13"), GATE_UP, 0),
    "mlp.up_proj": (("gate_up_proj", "w13"), GATE_UP, 1),
}
# Of a fused tensor, what its parts may be interleaved by.
INTERLEAVED = {QKV: "kv_head", GATE_UP: "intermediate"}
# Other orders in which engines keep the axes.
AXES: tuple[tuple[str, ...] | None, ...] = (
    None,
    ("batch", "head", "token", "head_dim"),
    ("batch", "kv_head", "token", "head_dim"),
    ("head", "token", "head_dim"),
    ("kv_head", "token", "head_dim"),
    ("batch*token", "vocab"),
    ("batch", "token", "vocab"),
)
# What dumpers write after a name, the likeliest first.
SUFFIXES = ("", ".output", ".0", ".output.0", "_output", ".out", "_out", "/output", "/value")
