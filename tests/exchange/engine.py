"""A stand-in for another engine: its dump, made of a golden's own tensors in that engine's way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.golden.file import GoldenFile

Dump = dict[str, NDArray[Any]]


def first_case(golden: GoldenFile) -> str:
    return next(info.case for info in golden.tensors.values() if info.case)


def flat(golden: GoldenFile, name: str) -> NDArray[Any]:
    """Return a tensor of the first case as [token, features]."""
    array = np.array(golden.map(f"cases/{first_case(golden)}/steps/00/{name}"))
    return array.reshape(array.shape[0] * array.shape[1], -1)


def vllm_like(golden: GoldenFile) -> Dump:
    """Fused projections, tokens without a batch, residuals beside the norms' outputs."""
    dump = {
        "model.embed_tokens": flat(golden, "embedding/output"),
        "model.norm.0": flat(golden, "final_norm/output"),
        "logits": flat(golden, "lm_head/output"),
    }
    for layer in range(golden.recipe["model"]["config"]["num_hidden_layers"]):
        attention, mlp = f"layers/{layer:02}/attention", f"layers/{layer:02}/mlp"
        one = {
            "input_layernorm.0": flat(golden, f"{attention}/input_layernorm"),
            "self_attn.qkv_proj": _joined(golden, [f"{attention}/{x}_proj" for x in "qkv"]),
            "self_attn.q_norm": flat(golden, f"{attention}/q_norm"),
            "self_attn.k_norm": flat(golden, f"{attention}/k_norm"),
            "self_attn.rotary_emb.0": flat(golden, f"{attention}/q_rope"),
            "self_attn.rotary_emb.1": flat(golden, f"{attention}/k_rope"),
            "self_attn.attn": flat(golden, f"{attention}/context"),
            "self_attn.o_proj": flat(golden, f"{attention}/o_proj"),
            "post_attention_layernorm.0": flat(golden, f"{mlp}/post_attention_layernorm"),
            "post_attention_layernorm.1": flat(golden, f"{attention}/output"),
            "mlp.gate_up_proj": _joined(golden, [f"{mlp}/gate_proj", f"{mlp}/up_proj"]),
            "mlp.act_fn": flat(golden, f"{mlp}/swiglu"),
            "mlp.down_proj": flat(golden, f"{mlp}/down_proj"),
            "0": flat(golden, f"{mlp}/down_proj"),
            "1": flat(golden, f"{attention}/output"),
        }
        dump |= {f"model.layers.{layer}.{name}": array for name, array in one.items()}
    return dump


def _joined(golden: GoldenFile, names: list[str]) -> NDArray[Any]:
    return np.concatenate([flat(golden, name) for name in names], axis=1)
