"""Random checkpoints: the same bits on every machine, with the traits of trained weights.

Each tensor has its own PCG64 stream, seeded by SHA-256 of (seed, name), so the order of
writing does not matter. Values are sums of uniform integers, times one float32 factor,
rounded once to the stored dtype: only IEEE 754 additions and multiplications, no libm.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goldenctl.atomic import whole_folder
from goldenctl.dtypes import DTYPES, DType
from goldenctl.errors import UsageError
from goldenctl.families import FAMILIES, PRESETS
from goldenctl.model.byte_tokenizer import byte_tokenizer
from goldenctl.model.config import WEIGHT_DTYPES, ModelConfig, preset_config, to_hf_dict
from goldenctl.model.fused_weights import stored_parts, stored_shape
from goldenctl.model.names import parameter_shapes
from goldenctl.model.safetensors_write import Chunks, write_checkpoint

SYNTH_VERSION = 1  # of the values: another number would give other bits
CHUNK_ELEMENTS = 1 << 16
# Four uniform 16-bit integers: the sum has this mean and this standard deviation,
# 65536 / sqrt(3) (rounded here once, so that no machine's sqrt matters).
_SUM_MEAN = 131070.0
_SUM_STD = 37837.227
_LANES = np.uint64(0x0000_FFFF_0000_FFFF)
_LOW = np.uint64(0xFFFF_FFFF)

Progress = Callable[[str, int, int], None]


def synth(
    preset: str,
    out: str | Path,
    seed: int = 0,
    *,
    dtype: str = "bfloat16",
    progress: Progress | None = None,
) -> Path:
    """Write a random checkpoint into the folder ``out`` and return it.

    ``out`` must not exist, or be an empty folder; it appears complete or not at all.
    ``progress(name, done_bytes, total_bytes)`` is called after each tensor. Raises
    UsageError for an unknown preset or dtype, a negative seed, or an ``out`` in use.
    """
    if preset not in PRESETS:
        message = f"preset {preset!r}: there is none of that name"
        raise UsageError(message, hint=f"there are {', '.join(PRESETS)}")
    return synth_config(preset_config(preset), out, seed, dtype=dtype, progress=progress)


def synth_config(
    config: ModelConfig,
    out: str | Path,
    seed: int = 0,
    *,
    dtype: str = "bfloat16",
    progress: Progress | None = None,
) -> Path:
    """Write a random checkpoint of ``config``; otherwise as ``synth``."""
    if dtype not in WEIGHT_DTYPES:
        message = f"dtype {dtype!r}: expected one of {', '.join(WEIGHT_DTYPES)}"
        raise UsageError(message)
    if seed < 0:
        message = f"seed {seed}: expected 0 or more"
        raise UsageError(message)
    out = Path(out)
    with whole_folder(out) as partial:
        _write(config, partial, seed, DTYPES[dtype], progress)
    return out


def _write(
    config: ModelConfig, folder: Path, seed: int, dtype: DType, progress: Progress | None
) -> None:
    hf_config = {**to_hf_dict(config), "dtype": dtype.name, "torch_dtype": dtype.name}
    for name, content in (("config.json", hf_config), ("tokenizer.json", byte_tokenizer())):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    shapes, stored = parameter_shapes(config), stored_parts(config)

    def chunks(name: str) -> Chunks:
        for part in stored[name]:
            yield from tensor_chunks(config, part, shapes[part], seed=seed, dtype=dtype)

    stored_shapes = {name: stored_shape(shapes, parts) for name, parts in stored.items()}
    write_checkpoint(folder, stored_shapes, dtype, chunks, progress)


def tensor_chunks(
    config: ModelConfig, name: str, shape: tuple[int, ...], *, seed: int, dtype: DType
) -> Iterator[NDArray[np.generic]]:
    """Yield the values of one parameter, flat, in ``dtype``, a chunk of whole rows at a time.

    Linear: std 1/sqrt(fan_in), q and k sharper, o and down weaker with depth. Norms: around
    1, or 0 where 1 is added to them. Biases: std 0.1. A few channels of the residual stream are
    large, as the massive activations of trained models are.
    """
    stream = np.random.PCG64(_tensor_seed(seed, name))
    width = shape[-1]
    rows = math.prod(shape[:-1])
    step = max(1, CHUNK_ELEMENTS // width)
    is_norm = name.endswith("norm.weight")
    offset = np.float32(1.0 if is_norm else 0.0)
    plus_one = is_norm and FAMILIES[config.model_type].style.norm.get("form") == "plus_one"
    scale = np.float32(_std(config, name, width) / _SUM_STD)
    channels = _column_factors(config, name, width, seed)
    loud_rows = _row_factors(config, name, seed)
    for row in range(0, rows, step):
        count = min(step, rows - row)
        values = _bell(stream, count * width).reshape(count, width)
        values *= scale
        values += offset
        if channels is not None:
            values *= channels
        if plus_one:
            values -= np.float32(1.0)
        if loud_rows is not None:
            values *= loud_rows[row : row + count, None]
        yield values.reshape(-1).astype(dtype.numpy)


def _std(config: ModelConfig, name: str, fan_in: int) -> float:
    """Return the standard deviation of a parameter, from what its name ends in."""
    if name.endswith("norm.weight"):
        return 0.25
    if name.endswith(".bias"):
        return 0.1
    if name.endswith("embed_tokens.weight"):
        return 0.05
    std = 1.0 / math.sqrt(fan_in)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return std / math.sqrt(2.0 * config.num_hidden_layers) * 2.0
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return std * 1.5
    return std


def _column_factors(
    config: ModelConfig, name: str, width: int, seed: int
) -> NDArray[np.float32] | None:
    """Return a factor per input channel, for embeddings and norms.

    q_norm and k_norm get 1.5 everywhere: attention is then not flat.
    """
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return np.full(width, 1.5, np.float32)
    if name.endswith("embed_tokens.weight"):
        return _loud_channels(config, seed, 8.0)
    return _loud_channels(config, seed, 3.0) if name.endswith("norm.weight") else None


def _row_factors(config: ModelConfig, name: str, seed: int) -> NDArray[np.float32] | None:
    """Return a factor per output channel: one early layer writes the massive activations."""
    early = name == f"model.layers.{min(1, config.num_hidden_layers - 1)}.mlp.down_proj.weight"
    return _loud_channels(config, seed, 60.0) if early else None


def _loud_channels(config: ModelConfig, seed: int, factor: float) -> NDArray[np.float32]:
    """Return ``[M]`` ones, but ``factor`` for the few loud channels of the residual stream."""
    count = max(2, config.hidden_size // 512)
    picks = np.random.PCG64(_tensor_seed(seed, "loud channels")).random_raw(count)
    factors = np.ones(config.hidden_size, np.float32)
    factors[picks % np.uint64(config.hidden_size)] = factor
    return factors


def _bell(stream: np.random.PCG64, count: int) -> NDArray[np.float32]:
    """Return ``count`` bell-shaped integers with mean 0 and deviation _SUM_STD, as float32.

    Each is the sum of the four 16-bit quarters of one 64-bit draw, below 2**18: exact.
    """
    draw = stream.random_raw(count)
    pairs = (draw & _LANES) + ((draw >> np.uint64(16)) & _LANES)
    sums = (pairs & _LOW) + (pairs >> np.uint64(32))
    values = sums.astype(np.float32)
    values -= np.float32(_SUM_MEAN)
    return values


def _tensor_seed(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"goldenctl synth {SYNTH_VERSION}:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:16], "little")
