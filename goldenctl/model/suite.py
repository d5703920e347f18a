"""The standard suite: the inputs that every port should be tried with, and why.

What needs no tokenizer is chosen from the checkpoint itself, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.case import Rows
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig

LONG_TOKENS = 256
_FEW = 16
_EXTREMES = 8
_BLOCK_ROWS = 8192
_EMBEDDING = "model.embed_tokens.weight"
# Candidates for a massive activation: rows with one dominant element, the first ids (often
# the start of a text), and rows spread over the vocabulary.
_PEAKED, _FIRST_IDS, _SPREAD = 64, 16, 48

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SuiteCase:
    """One input and its reason: a text, or ids whose first stands at ``position_offset``."""

    name: str
    why: str
    text: str | None = None
    token_ids: Rows | None = None
    position_offset: int = 0


def standard_suite(
    checkpoint: Checkpoint, config: ModelConfig, *, decode: int = 0
) -> Iterator[SuiteCase]:
    """Yield the suite's cases, short ones first; ``decode`` tokens are to follow each prompt."""
    room = config.max_position_embeddings - decode
    few = max(1, min(_FEW, room))
    rows = embedding_rows(checkpoint)
    yield SuiteCase("short", "a few tokens: the quickest check of every op", "The sky is blue.")
    yield SuiteCase(
        "single-token",
        "one token: every matrix product has one row, where kernels take another path",
        token_ids=((int(rows.by_norm[len(rows.by_norm) // 2]),),),
    )
    yield SuiteCase(
        "repeated-token",
        "one token again and again: only its position tells a row from the next, so that a "
        "wrong RoPE or mask stands out",
        token_ids=((int(rows.by_norm[len(rows.by_norm) // 2]),) * few,),
    )
    yield SuiteCase(
        "rare-tokens",
        "the last rows of the embedding: a table cut short or read with a wrong size",
        token_ids=(tuple(range(config.vocab_size)[-few:]),),
    )
    yield SuiteCase(
        "chinese", "text of several bytes a character: other tokens than English", _CHINESE
    )
    yield SuiteCase("code", "program text: indentation, brackets, rare words", _CODE)
    yield SuiteCase(
        "near-max-positions",
        f"the last {few} positions of max_position_embeddings {config.max_position_embeddings}: "
        "rotary tables that are too short, or angles rounded too early",
        token_ids=(spread_ids(few, config.vocab_size),),
        position_offset=room - few,
    )
    yield SuiteCase(
        "embedding-scale",
        "the largest and the smallest rows of the embedding: the norm's epsilon, overflow",
        token_ids=(rows.extremes(min(_EXTREMES, few)),),
    )
    yield SuiteCase(
        "massive-activation",
        "tokens with the largest element after the first MLP: one channel dwarfs the others, "
        "whose sums lose digits",
        token_ids=(massive_ids(checkpoint, config, rows)[:few],),
    )
    long = max(1, min(LONG_TOKENS, room))
    yield SuiteCase(
        "long",
        f"{long} tokens: wide rows of scores, long sums, tiles beyond the first",
        token_ids=(spread_ids(long, config.vocab_size),),
    )


def spread_ids(count: int, vocab_size: int) -> tuple[int, ...]:
    """Return ids that walk over the whole vocabulary by the golden ratio."""
    step = max(1, round(vocab_size * 0.6180339887))
    return tuple(step * (i + 1) % vocab_size for i in range(count))


@dataclass(frozen=True)
class EmbeddingRows:
    """Token ids by the norm of their embedding, and by how much one element dominates it."""

    by_norm: NDArray[np.int64]
    by_peak: NDArray[np.int64]

    def extremes(self, count: int) -> tuple[int, ...]:
        """The largest and the smallest rows in turn, ``count`` in all."""
        pairs = zip(self.by_norm[::-1], self.by_norm, strict=True)
        return tuple(int(token) for pair in pairs for token in pair)[:count]


def embedding_rows(checkpoint: Checkpoint) -> EmbeddingRows:
    """Order the rows of the embedding; rows that are zero or not finite come first."""
    table = checkpoint.map(_EMBEDDING)
    norms, peaks = [], []
    for start in range(0, len(table), _BLOCK_ROWS):
        block = np.asarray(table[start : start + _BLOCK_ROWS], np.float32)
        block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        norm = np.sqrt(np.square(block).sum(axis=1, dtype=np.float64))
        norms.append(norm)
        peaks.append(np.abs(block).max(axis=1) / np.maximum(norm, 1e-30))
    by_norm, by_peak = (np.argsort(np.concatenate(x), kind="stable") for x in (norms, peaks))
    return EmbeddingRows(by_norm, by_peak)


def massive_ids(
    checkpoint: Checkpoint, config: ModelConfig, rows: EmbeddingRows
) -> tuple[int, ...]:
    """Return token ids whose hidden state has the largest element after the first layer's MLP
    (fed with their embeddings; attention is left out), largest first."""
    spread = spread_ids(_SPREAD, config.vocab_size)
    first = range(min(_FIRST_IDS, config.vocab_size))
    ids = np.unique([*rows.by_peak[-_PEAKED:], *rows.by_norm[-_EXTREMES:], *first, *spread])
    hidden = np.asarray(checkpoint.map(_EMBEDDING)[ids], np.float32)
    with np.errstate(all="ignore"):
        after = hidden + _first_mlp(checkpoint, config, hidden)
    largest = np.nan_to_num(np.abs(after).max(axis=1))
    order = np.argsort(-largest, kind="stable")[:_EXTREMES]
    return tuple(int(token) for token in ids[order])


def _first_mlp(checkpoint: Checkpoint, config: ModelConfig, x: Floats) -> Floats:
    """[n, M] -> [n, M] in float32."""

    def linear(name: str, value: Floats) -> Floats:
        weight = np.asarray(checkpoint.map(f"{prefix}.mlp.{name}.weight"), np.float32)
        out: Floats = value @ weight.T
        if config.mlp_bias:
            out = out + np.asarray(checkpoint.map(f"{prefix}.mlp.{name}.bias"), np.float32)
        return out

    prefix = "model.layers.0"
    scale = np.asarray(checkpoint.map(f"{prefix}.post_attention_layernorm.weight"), np.float32)
    normed = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + config.rms_norm_eps) * scale
    gate, up = linear("gate_proj", normed), linear("up_proj", normed)
    inner = gate / (1.0 + np.exp(-gate)) * up
    return linear("down_proj", inner.astype(np.float32))


_CHINESE = "大型语言模型正在改变我们编写和测试软件的方式。请用三句话解释什么是注意力机制。"
_CODE = '''def softmax(scores: list[float]) -> list[float]:
    """Return exp(s - max) / sum, safe for large scores."""
    largest = max(scores)
    powers = [math.exp(s - largest) for s in scores]
    return [p / sum(powers) for p in powers]
'''
