"""An engine of NumPy that writes the log of its calls as a traced one would.

It computes a golden's model with the layouts that engines have: fused products, residuals added
in the norm, rotation and softmax in place, caches by key head, attention as one op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig
from goldenctl.trace.digest import digest_rows
from goldenctl.trace.weights import Book
from tests.trace.logs import Log, packed

Array = NDArray[Any]
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Habits:
    """How an engine does things.

    ``attention`` is ``matrices``, ``flash``, ``one op`` that writes the cache too, or ``paged``;
    ``cache`` is ``calls`` or ``memcpy``, which no call shows; ``gate`` names the MLP's op.
    """

    fused_products: bool = True
    add_in_norm: bool = False
    gate: str = "swiglu"
    attention: str = "matrices"
    cache: str = "calls"
    last_logits: bool = True
    shared_cache: bool = False
    keys_early: int = 0  # slots by which decode steps write the cache too early
    pairs: bool = False  # the rotation's kernel turns neighbours, whatever it is asked for
    skip: frozenset[str] = frozenset()
    split: str = ""  # how products with blocks of columns become one: beta, add or outside
    swapped_blocks: bool = False  # each block of columns meets another one's inputs
    heads_first: bool = True  # in pages: [blocks, heads, slots, D]
    lengths_off: int = 0  # of the sequences, as attention is told
    wrong_tables: bool = False  # attention is given the blocks in another order
    causal: bool = True
    truncates: bool = False  # towards zero, in place of rounding to the nearest


@dataclass(frozen=True)
class Rank:
    """One of the processes that share a model; ``total`` adds up an array over all of them."""

    number: int = 0
    count: int = 1
    total: Callable[[Array], Array] = lambda x: x

    def rows(self, matrix: Array) -> Array:
        return np.split(matrix, self.count)[self.number]

    def columns(self, matrix: Array) -> Array:
        return np.split(matrix, self.count, axis=1)[self.number]


@dataclass
class WeightLog(Log):
    """A log that knows a checkpoint's rows, as the preloaded library does."""

    book: Book | None = None
    known: set[int] = field(default_factory=set)

    def learn(self, book: Book) -> None:
        self.book = book
        self.known = set(book._digests.tolist())
        self.widths = sorted({e.row_bytes for e in book._entries}, reverse=True)

    def content(self, array: Array) -> str:
        data = packed(array)
        for width in self.widths:
            if data and len(data) % width == 0:
                digests = digest_rows(np.frombuffer(data, np.uint8).reshape(-1, width))
                if self.known.issuperset(digests.tolist()):
                    return self._weight(data, digests, width)
        return super().content(array)

    def _weight(self, data: bytes, digests: Array, width: int) -> str:
        name = f"{hash(data) & (1 << 128) - 1:032x}"
        if name not in self.seen:
            head = {"kind": "weight", "id": name, "row_bytes": width, "form": "rows"}
            self.writer.append(head, digests.tobytes())
            self.seen.add(name)
        return name


class PretendEngine:
    """Computes passes over tokens; a row of them is a request of a batch."""

    def __init__(
        self,
        log: WeightLog,
        checkpoint: Checkpoint,
        config: ModelConfig,
        dtype: Any,
        habits: Habits,
        rank: Rank = Rank(),
    ) -> None:
        self.rank = rank
        self.log, self.config, self.habits = log, config, habits
        self.dtype = np.dtype(dtype)
        self.weights = {
            name: checkpoint.map(name).astype(np.float32).astype(self.dtype)
            for name in checkpoint.names()
        }
        self.tables: dict[str, Array] = {}
        self.caches: dict[tuple[int, str], Array] = {}
        self.past = 0
        self.pasts: list[int] = []  # of each row
        self.hidden_keys: Array | None = None  # [B, all tokens]: padding, where it is computed

    # --- ops: each computes in float32, rounds into its output, and is logged ---

    def op(
        self, name: str, out: Array, value: Array, *inputs: tuple[str, Array], **scalars: Any
    ) -> Array:
        if name in self.habits.skip:
            return out
        args = [(key, np.array(x, copy=False), self.log.arg(key, "in", x)) for key, x in inputs]
        found = out.copy()
        out[...] = self.rounded(value)
        output = self.log.arg("y", "inout" if scalars.get("beta") else "out", out, found)
        self.log.call(name, output, *(arg for *_, arg in args), scalars=scalars)
        return out

    def rounded(self, value: Array) -> Array:
        nearest = value.astype(self.dtype)
        if not self.habits.truncates:
            return nearest
        beyond = np.abs(wide(nearest)) > np.abs(value)
        return np.where(beyond, np.nextafter(nearest, self.dtype.type(0)), nearest)

    def new(self, *shape: int) -> Array:
        return np.zeros(shape, self.dtype)

    def gemm(self, a: Array, b: Array, alpha: float = 1.0, out: Array | None = None) -> Array:
        value = alpha * (wide(a) @ wide(b))
        beta = 0.0 if out is None else 1.0
        out = self.new(*value.shape) if out is None else out
        value = value + beta * wide(out)
        return self.op("Gemm", out, value, ("a", a), ("b", b), alpha=alpha, beta=beta)

    def linear(self, x: Array, *names: str) -> Array:
        """Products with this rank's rows of weights."""
        weight = np.concatenate([self.rank.rows(self.weights[name]) for name in names])
        return self.gemm(x, weight.T)

    def summed(self, x: Array, name: str) -> Array:
        """A product with blocks of a weight's columns, whose results are added up."""
        weight = self.weights[name]
        if self.rank.count > 1:
            out = self.gemm(x, self.rank.columns(weight).T)
            out[...] = self.rank.total(out)
            return out
        if not self.habits.split:
            return self.gemm(x, weight.T)
        inputs, blocks = np.split(x, 2, axis=1), np.split(weight, 2, axis=1)
        inputs = inputs[::-1] if self.habits.swapped_blocks else inputs
        out = self.gemm(inputs[0], blocks[0].T)
        if self.habits.split == "beta":
            return self.gemm(inputs[1], blocks[1].T, out=out)
        if self.habits.split == "add":
            self.add(out, self.gemm(inputs[1], blocks[1].T))
        else:
            out[...] = wide(x) @ wide(weight).T
        return out

    def norm(self, x: Array, name: str, out: Array | None = None) -> Array:
        w, eps = self.weights[name], self.config.rms_norm_eps
        out = self.new(*x.shape) if out is None else out
        return self.op("RMSNorm", out, _normed(x, w, eps), ("x", x), ("w", w), epsilon=eps)

    def add_norm(self, hidden: Array, added: Array, name: str) -> Array:
        w, eps = self.weights[name], self.config.rms_norm_eps
        total = (wide(hidden) + wide(added)).astype(self.dtype)
        args = [self.log.arg(k, "in", x) for k, x in (("a", hidden), ("b", added), ("w", w))]
        y = _normed(total, w, eps).astype(self.dtype)
        hidden[...] = total
        outs = [self.log.arg("y", "out", y), self.log.arg("residual_out", "out", hidden)]
        self.log.call("AddRMSNorm", *outs, *args, scalars={"epsilon": eps})
        return y

    def add(self, a: Array, b: Array) -> None:
        self.op("Add", a, wide(a) + wide(b), ("a", a.copy() if a is b else a), ("b", b))

    def copy(self, out: Array, x: Array) -> None:
        self.op("Rearrange", out, wide(x), ("x", x))

    def rope(self, x: Array, positions: Array) -> None:
        sin, cos = self.tables["sin"], self.tables["cos"]
        index = positions.reshape(x.shape[0], 1)
        s, c = (wide(t)[index] for t in (sin, cos))
        first, second = np.split(wide(x), 2, axis=-1)
        if self.habits.pairs:
            first, second = wide(x)[..., 0::2], wide(x)[..., 1::2]
        turned = np.concatenate([first * c - second * s, second * c + first * s], -1)
        if self.habits.pairs:
            turned = turned.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)
        tables = (("pos_ids", positions), ("sin_table", sin), ("cos_table", cos))
        self.op("RoPE", x, turned, ("x", x), *tables, algo="INFINIOP_ROPE_ALGO_GPT_NEOX")

    # --- the model ---

    def forward(self, ids: Rows, positions: Rows | None = None) -> Array:
        """Compute one pass of [B, S] tokens over the cache; return the last hidden states."""
        batch, count = len(ids), len(ids[0])
        self.counts = [len(row) for row in ids]
        self.pasts = self.pasts or [0] * batch
        spans = zip(self.pasts, self.counts, strict=True)
        where = positions or [range(past, past + each) for past, each in spans]
        self.positions = np.concatenate([np.array(row, np.int32) for row in where])
        self.shape = (batch, count)
        flat = np.concatenate([np.array(row) for row in ids])
        hidden = self.weights["model.embed_tokens.weight"][flat].copy()
        added: Array | None = None
        for layer in range(self.config.num_hidden_layers):
            prefix = f"model.layers.{layer}"
            normed = self._next(hidden, added, f"{prefix}.input_layernorm.weight")
            added = self._added(hidden, self.attention(normed, layer))
            normed = self._next(hidden, added, f"{prefix}.post_attention_layernorm.weight")
            added = self._added(hidden, self.mlp(normed, f"{prefix}.mlp"))
        self.past += count
        self.pasts = [past + each for past, each in zip(self.pasts, self.counts, strict=True)]
        if self.habits.last_logits and not self.habits.add_in_norm:
            ends = np.cumsum(self.counts) - 1
            evenly = len(set(self.counts)) == 1
            hidden = hidden[self.counts[0] - 1 :: self.counts[0]] if evenly else hidden[ends]
        final = self._next(hidden, added, "model.norm.weight")
        tied = self.config.tie_word_embeddings
        head = "model.embed_tokens.weight" if tied else "lm_head.weight"
        return self.gemm(final, self.weights[head].T)

    def _next(self, hidden: Array, added: Array | None, name: str) -> Array:
        if added is not None and self.habits.add_in_norm:
            return self.add_norm(hidden, added, name)
        return self.norm(hidden, name)

    def _added(self, hidden: Array, value: Array) -> Array | None:
        if self.habits.add_in_norm:
            return value
        self.add(hidden, value)
        return None

    def attention(self, normed: Array, layer: int) -> Array:
        config, prefix = self.config, f"model.layers.{layer}.self_attn"
        dim, ranks = config.head_dim, self.rank.count
        heads, kv = config.num_attention_heads // ranks, config.num_key_value_heads // ranks
        names = [f"{prefix}.{x}_proj.weight" for x in "qkv"]
        if self.habits.fused_products:
            qkv = self.linear(normed, *names).reshape(len(normed), heads + 2 * kv, dim)
            q, k, v = np.split(qkv, [heads, heads + kv], axis=1)
        else:
            q, k, v = (self.linear(normed, name).reshape(len(normed), -1, dim) for name in names)
        if config.qk_norm:
            self.norm(q, f"{prefix}.q_norm.weight", q)
            self.norm(k, f"{prefix}.k_norm.weight", k)
        self.rope(q, self.positions)
        self.rope(k, self.positions)
        context = self.new(len(normed), heads, dim)
        if self.habits.attention in ("paged", "one op"):
            attend_all = self._paged if self.habits.attention == "paged" else self._one_op
            attend_all(layer, context, q, k, v)
        else:
            keys, values = self._cached(layer, "k", k), self._cached(layer, "v", v)
            attend = self._flash if self.habits.attention == "flash" else self._matrices
            batch, count = self.shape
            for row in range(batch):
                self.row = row
                span = slice(row * count, (row + 1) * count)
                attend(context[span], q[span], keys[row], values[row])
        return self.summed(context.reshape(len(normed), -1), f"{prefix}.o_proj.weight")

    def _cached(self, layer: int, name: str, x: Array) -> Array:
        """Append keys or values to the cache [B, K, capacity, D]; return what is filled."""
        batch, count = self.shape
        where = (0 if self.habits.shared_cache else layer, name)
        capacity = 32
        if where not in self.caches:
            self.caches[where] = self.new(batch, x.shape[1], capacity, x.shape[2])
        first = self.past - (self.habits.keys_early if self.past else 0)
        for row in range(batch):
            target = self.caches[where][row, :, first : first + count]
            source = x[row * count : (row + 1) * count].transpose(1, 0, 2)
            if self.habits.cache == "calls":
                self.copy(target, source)
            else:
                target[...] = source
        return self.caches[where][:, :, : self.past + count]

    def _matrices(self, out: Array, q: Array, keys: Array, values: Array) -> None:
        count, heads, dim = q.shape
        kv, total = keys.shape[0], keys.shape[1]
        queries = self.new(kv, heads // kv, count, dim)
        self.copy(queries, q.reshape(count, kv, heads // kv, dim).transpose(1, 2, 0, 3))
        scores = self.gemm(
            queries.reshape(kv, -1, dim), keys.transpose(0, 2, 1), self.config.head_dim**-0.5
        )
        by_head = scores.reshape(heads, count, total)
        if self.hidden_keys is None:
            self.op("CausalSoftmax", by_head, _softmax(by_head), ("x", by_head))
        else:
            mask = np.zeros((count, total), self.dtype)
            mask[:, self.hidden_keys[self.row, :total]] = -30000
            mask[np.arange(total)[None] > np.arange(count)[:, None] + total - count] = -30000
            spread = np.broadcast_to(mask, by_head.shape)
            self.op("Add", by_head, wide(by_head) + mask, ("a", by_head), ("b", spread))
            self.op("Softmax", by_head, _exp(wide(by_head)), ("x", by_head))
        found = self.gemm(scores, values)
        context = out.reshape(count, kv, heads // kv, dim).transpose(1, 2, 0, 3)
        self.copy(context, found.reshape(kv, heads // kv, count, dim))

    def _one_op(self, layer: int, out: Array, q: Array, k: Array, v: Array) -> None:
        """The op that InfiniCore composes of others; a row of the batch at a time."""
        count = self.shape[1]
        for row in range(self.shape[0]):
            span = slice(row * count, (row + 1) * count)
            new = [x[span].transpose(1, 0, 2) for x in (k, v)]
            caches = []
            for name, x in zip("kv", new, strict=True):
                where = (layer, f"{name}{row}")
                if where not in self.caches:
                    self.caches[where] = self.new(x.shape[0], 16, x.shape[2])
                caches.append(self.caches[where])
            before = [cache.copy() for cache in caches]
            for cache, x in zip(caches, new, strict=True):
                cache[:, self.past : self.past + count] = x
            keys, values = (cache[:, : self.past + count] for cache in caches)
            out[span] = _attended(q[span], keys, values).astype(self.dtype)
            args = [self.log.arg("out", "out", out[span])]
            args.append(self.log.arg("q", "in", q[span].transpose(1, 0, 2)))
            args += [self.log.arg(n, "in", x) for n, x in zip("kv", new, strict=True)]
            for name, cache, old in zip("kv", caches, before, strict=True):
                args.append(self.log.arg(f"{name}_cache", "inout", cache, old))
            self.log.call("Attention", *args, scalars={"pos": self.past})

    def _paged(self, layer: int, out: Array, q: Array, k: Array, v: Array) -> None:
        """Write keys and values into pages, of which each row has its own in any order, and
        attend to all rows at once."""
        batch, kv, dim = len(self.counts), k.shape[1], k.shape[2]
        slots, most = 4, 4  # of a block, and blocks of a row
        tables = np.random.default_rng(5).permutation(batch * most).reshape(batch, most)
        shape = (batch * most, slots, kv, dim)
        pages = []
        for name in "kv":
            if (layer, name) not in self.caches:
                self.caches[layer, name] = self.new(*shape)
                if self.habits.heads_first:
                    turned = self.new(shape[0], kv, slots, dim)
                    self.caches[layer, name] = turned.transpose(0, 2, 1, 3)
            pages.append(self.caches[layer, name])
        where = [
            (tables[row, token // slots], token % slots)
            for row in range(batch)
            for token in range(self.pasts[row], self.pasts[row] + self.counts[row])
        ]
        mapping = np.array([block * slots + slot for block, slot in where], np.int64)
        held = [page.transpose(0, 2, 1, 3) if self.habits.heads_first else page for page in pages]
        before = [page.copy() for page in pages]
        for page, x in zip(pages, (k, v), strict=True):
            for (block, slot), each in zip(where, x, strict=True):
                page[block, slot] = each
        turned = [b.transpose(0, 2, 1, 3) if self.habits.heads_first else b for b in before]
        arg = self.log.arg
        caches = [
            arg(f"{n}_cache", "inout", page, old)
            for n, page, old in zip("kv", held, turned, strict=True)
        ]
        new = [arg(n, "in", x) for n, x in zip("kv", (k, v), strict=True)]
        self.log.call("PagedCaching", *caches, *new, arg("slot_mapping", "in", mapping))
        totals = np.array(self.pasts) + self.counts
        value, at = [], 0
        for row, total in enumerate(totals):
            keys, values = (page[tables[row]].reshape(-1, kv, dim)[:total] for page in pages)
            mine, at = q[at : at + self.counts[row]], at + self.counts[row]
            value.append(_attended(mine, keys.swapaxes(0, 1), values.swapaxes(0, 1)))
        given = tables[:, ::-1].copy() if self.habits.wrong_tables else tables
        lengths = (totals + self.habits.lengths_off).astype(np.int64)
        decode = max(self.counts) == 1
        more = [] if decode else [("new_lens", np.array(self.counts, np.int64))]
        self.op(
            "PagedAttention" if decode else "PagedAttentionPrefill",
            out,
            np.concatenate(value),
            ("q", q),
            *(("k_cache", held[0]), ("v_cache", held[1])),
            *(("block_tables", given.astype(np.int64)), ("seq_lens", lengths)),
            *more,
            scale=dim**-0.5,
        )

    def _flash(self, out: Array, q: Array, keys: Array, values: Array) -> None:
        given = {"scale": self.config.head_dim**-0.5, "is_causal": int(self.habits.causal)}
        value = _attended(q, keys, values)
        self.op("FlashAttention", out, value, ("q", q), ("k", keys), ("v", values), **given)

    def mlp(self, normed: Array, prefix: str) -> Array:
        names = [f"{prefix}.{x}_proj.weight" for x in ("gate", "up")]
        joined = self.linear(normed, *names)
        gate, up = np.split(joined, 2, axis=-1)
        active = self.new(*gate.shape)
        value = wide(up) * (wide(gate) / (1 + np.exp(-wide(gate)))).astype(self.dtype)
        if self.habits.gate == "swiglu":
            self.op("SwiGLU", active, wide(value), ("a", up), ("b", gate))
        elif self.habits.gate == "silu_and_mul":
            self.op("SiluAndMul", active, wide(value), ("input", joined))
        else:
            self.op("OwnGate", active, wide(value), ("closed", gate), ("open", up))
        return self.summed(active, f"{prefix}.down_proj.weight")


def wide(x: Array) -> Array:
    return np.asarray(x, np.float32)


def _normed(x: Array, w: Array, eps: float) -> Array:
    squares = np.mean(wide(x) ** 2, axis=-1, keepdims=True)
    return wide(x) / np.sqrt(squares + np.float32(eps)) * wide(w)


def _attended(q: Array, keys: Array, values: Array) -> Array:
    """Return the context [T, H, D] of queries [T, H, D] over keys and values [K, S, D]."""
    group = q.shape[1] // keys.shape[0]
    k, v = (wide(x).repeat(group, axis=0) for x in (keys, values))
    scores = np.einsum("thd,hsd->hts", wide(q), k) * q.shape[-1] ** -0.5
    return np.asarray(np.einsum("hts,hsd->thd", _softmax(scores), v))


def _softmax(scores: Array) -> Array:
    count, total = scores.shape[-2:]
    hidden = np.arange(total)[None] > np.arange(count)[:, None] + total - count
    return _exp(np.where(hidden, -np.inf, wide(scores)))


def _exp(x: Array) -> Array:
    x = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(x / x.sum(-1, keepdims=True))
