"""Rotary frequencies and tables against transformers, in units in the last place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from goldenctl.model.config import ModelConfig, parse_config
from goldenctl.model.rope import inv_freq, rope_tables

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
TYPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "proportional": {
        "rope_type": "proportional",
        "factor": 2.0,
        "partial_rotary_factor": 0.5,
    },
    "llama3": {"rope_type": "llama3", "factor": 8.0, **LLAMA3},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "beta_fast": 24,
        "beta_slow": 2,
        "truncate": False,
    },
    "yarn-factor": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 0.9},
}
POSITIONS = 4096


def _config(rope: dict[str, Any], head_dim: int, theta: float) -> dict[str, Any]:
    return {
        "hidden_size": 4 * head_dim,
        "num_attention_heads": 4,
        "head_dim": head_dim,
        "max_position_embeddings": 131072,
        "rope_parameters": {**rope, "rope_theta": theta},
    }


def _parsed(rope: dict[str, Any], head_dim: int = 128, theta: float = 1e6) -> ModelConfig:
    return parse_config({"model_type": "llama", **_config(rope, head_dim, theta)}, where="c")


def _ulps(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    """Return the largest distance in units in the last place; values of opposite sign are far."""
    a_bits, b_bits = (np.where(x < 0, -1, 1) * np.abs(x).view(np.int32) for x in (a, b))
    return int(np.abs(a_bits.astype(np.int64) - b_bits.astype(np.int64)).max())


@pytest.mark.parametrize("theta", [1e4, 5e5, 1e6])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("kind", TYPES)
def test_agrees_with_transformers(kind: str, head_dim: int, theta: float) -> None:
    """Frequencies within 2 units (torch's pow is 1 off), cos and sin of the same angle too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = TYPES[kind]
    module = LlamaRotaryEmbedding(transformers.LlamaConfig(**_config(rope, head_dim, theta)))
    ours, scaling = inv_freq(_parsed(rope, head_dim, theta))
    theirs = module.inv_freq.numpy()
    assert scaling == module.attention_scaling
    assert _ulps(ours, theirs) <= 2
    cos, sin = module(torch.zeros(1), torch.arange(POSITIONS)[None])
    our_cos, our_sin = rope_tables(_parsed(rope, head_dim, theta), POSITIONS)
    same = ours == theirs
    for ours_, theirs_ in ((our_cos, cos), (our_sin, sin)):
        full = theirs_[0, :, : head_dim // 2].numpy()
        assert ours_.dtype == np.float32
        assert ours_.shape == full.shape
        assert _ulps(ours_[:, same], full[:, same]) <= 2
        # an angle of P is off by 2 units of P at most
        assert np.abs(ours_ - full).max() <= POSITIONS * 2.0**-22


def test_powers_of_two_are_exact() -> None:
    frequencies, scaling = inv_freq(_parsed(TYPES["default"], head_dim=8, theta=65536.0))
    assert frequencies.tolist() == [1.0, 2.0**-4, 2.0**-8, 2.0**-12]
    assert scaling == 1.0
    cos, sin = rope_tables(_parsed(TYPES["default"], head_dim=8, theta=65536.0), 1)
    assert cos.tolist() == [[1.0] * 4]
    assert sin.tolist() == [[0.0] * 4]


def test_llama3_keeps_high_and_slows_low_frequencies() -> None:
    plain, _ = inv_freq(_parsed(TYPES["default"]))
    scaled, _ = inv_freq(_parsed(TYPES["llama3"]))
    assert scaled[0] == plain[0]
    assert scaled[-1] == plain[-1] / np.float32(8)
    ratio = plain / scaled
    assert ((ratio > 1.5) & (ratio < 7.5)).any()
