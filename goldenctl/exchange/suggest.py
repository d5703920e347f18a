"""Owns the first draft of a name map: guesses from the dump's names, checked by shape.

The names are those that Hugging Face modules have under a forward hook (vLLM's are the same,
with q, k, v and gate, up fused), and those of llama.cpp's graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from goldenctl.errors import UsageError, printable
from goldenctl.exchange.dump import DumpTensor
from goldenctl.exchange.fit import Fit, case_sizes
from goldenctl.exchange.namemap import MAP_VERSION, Entry, NameMap, encode, fill
from goldenctl.exchange.select import dotted_name
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo

_QKV = ("head*head_dim", "kv_head*head_dim", "kv_head*head_dim")
_GATE_UP = ("intermediate", "intermediate")
# Endings of a dump's names by the golden's sublayer and tap, the likeliest first.
_ENDINGS: dict[str, tuple[str, ...]] = {
    "embedding.output": ("embed_tokens", "wte", "inp_embd", "embeddings"),
    "final_norm.output": ("model.norm", "ln_f", "result_norm", "norm"),
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
    "attention.probs": ("probs", "attn_weights", "kq_soft_max-{layer}"),
    "attention.context": (
        "self_attn.attn",
        "attn.core",
        "context",
        "o_proj.input",
        "kqv_out-{layer}",
    ),
    "attention.o_proj": ("o_proj", "self_attn", "wo", "attn_out-{layer}"),
    # vLLM's norms add the residual first and yield the sum second.
    "attention.output": (
        "post_attention_layernorm.1",
        "post_attention_layernorm.input",
        "attention_output",
        "ffn_inp-{layer}",
    ),
    "mlp.post_attention_layernorm": ("post_attention_layernorm", "ln_2", "ffn_norm-{layer}"),
    "mlp.gate_proj": ("gate_proj", "w1", "ffn_gate-{layer}"),
    "mlp.up_proj": ("up_proj", "w3", "ffn_up-{layer}"),
    "mlp.swiglu": ("swiglu", "down_proj.input", "ffn_swiglu-{layer}", "ffn_gate_par-{layer}"),
    "mlp.down_proj": ("down_proj", "mlp", "w2", "ffn_out-{layer}"),
    "mlp.output": ("layers.{layer}", "h.{layer}", "blk.{layer}", "l_out-{layer}"),
}
_FUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "attention.q_proj": (("qkv_proj", "c_attn", "qkv"), _QKV, 0),
    "attention.k_proj": (("qkv_proj", "c_attn", "qkv"), _QKV, 1),
    "attention.v_proj": (("qkv_proj", "c_attn", "qkv"), _QKV, 2),
    "attention.value": (("qkv_proj", "c_attn", "qkv"), _QKV, 2),
    "mlp.gate_proj": (("gate_up_proj", "w13"), _GATE_UP, 0),
    "mlp.up_proj": (("gate_up_proj", "w13"), _GATE_UP, 1),
}
# Other orders in which engines keep the axes.
_AXES: tuple[tuple[str, ...] | None, ...] = (
    None,
    ("batch", "head", "token", "head_dim"),
    ("batch", "kv_head", "token", "head_dim"),
    ("head", "token", "head_dim"),
    ("kv_head", "token", "head_dim"),
    ("batch*token", "vocab"),
    ("batch", "token", "vocab"),
)
_LAYER = re.compile(
    r"(?:(?<=layers[._])|(?<=layer[._])|(?<=blocks[._])|(?<=blk\.)|(?<=\bh\.)|(?<=-))\d{1,5}(?![^.\-_/#])"
)
_AGAIN = re.compile(r"#\d{1,6}$")  # as exchange/taps.py names what a program tapped again


def listing(dump: Mapping[str, DumpTensor], golden: GoldenFile | None) -> Iterator[str]:
    """Yield the dump's names as comments, then, with a golden, the map that they suggest."""
    yield f"# {len(dump)} tensors"
    width = min(max((len(name) for name in dump), default=0), 60)
    for tensor in dump.values():
        shape = ", ".join(map(str, tensor.shape))
        yield f"# {printable(tensor.name):<{width}}  {tensor.dtype} [{shape}]"
    if golden is None:
        yield "# with --golden GOLDEN a map is suggested"
        return
    mapping = suggest(dump, golden)
    yield "# A guess by names and shapes: check every line, above all transposed square axes."
    yield from encode(mapping).splitlines()


def suggest(dump: Mapping[str, DumpTensor], golden: GoldenFile) -> NameMap:
    """Return a map of what can be guessed; the taps that have no guess are not computed."""
    templates = {_template(name) for name in dump}
    kinds = _kinds(golden)
    entries, left_out = [], []
    taken: set[tuple[str, int]] = set()
    for pattern, info in kinds.items():
        for entry in _candidates(pattern, templates):
            if (entry.dump, entry.part) not in taken and _fits(entry, info, dump, golden):
                entries.append(entry)
                taken.add((entry.dump, entry.part))
                break
        else:
            left_out.append(pattern.replace("{layer}", "*"))
    return NameMap(
        map_version=MAP_VERSION,
        engine="NAME AND VERSION",
        lacking="error",
        not_computed=tuple(left_out),
        tensor=tuple(entries),
    )


def _kinds(golden: GoldenFile) -> dict[str, TensorInfo]:
    """Return one tensor, of the first layer that has it, for each golden pattern."""
    found: dict[str, TensorInfo] = {}
    for info in golden.tensors.values():
        if info.role in ("tap", "output"):
            pattern = re.sub(r"^layers\.\d+\.", "layers.{layer}.", dotted_name(info.name))
            found.setdefault(pattern, info)
    return found


def _candidates(pattern: str, templates: set[str]) -> Iterator[Entry]:
    kind = pattern.removeprefix("layers.{layer}.")
    layered = pattern != kind
    endings = _ENDINGS.get(kind, ())
    if kind == "mlp.output":  # vLLM's layers yield the block's output and the residual apart
        for first in _ending_in("layers.{layer}.0", templates, layered=True):
            yield Entry(pattern, first, plus=f"{first[:-1]}1")
    if kind == "mlp.swiglu" and any("gate_up_proj" in template for template in templates):
        endings = ("act_fn", *endings)  # elsewhere that is SiLU alone
    for ending in endings:
        for template in _ending_in(ending, templates, layered=layered):
            for axes in _AXES:
                yield Entry(pattern, template, axes=axes)
    endings, split, part = _FUSED.get(kind, ((), (), 0))
    for ending in endings:
        for template in _ending_in(ending, templates, layered=layered):
            yield Entry(pattern, template, split=split, part=part)


def _ending_in(ending: str, templates: set[str], *, layered: bool) -> list[str]:
    """Return the templates that end so, after the output that some dumpers name."""
    plain = ("", ".output", ".0", ".output.0", "_output", ".out")
    suffixes = (*plain, *(f"{suffix}#{{step}}" for suffix in plain))
    return [
        template
        for suffix in suffixes
        for template in sorted(templates, key=len)
        if ("{layer}" in template) == layered
        and (
            template == ending + suffix
            or re.search(rf"[./_]{re.escape(ending + suffix)}$", template)
        )
    ]


def _template(name: str) -> str:
    """Return a name with its layer number, and that of a tap that came again, as fields."""
    return _AGAIN.sub("#{step}", _LAYER.sub("{layer}", name, count=1))


def _fits(
    entry: Entry, info: TensorInfo, dump: Mapping[str, DumpTensor], golden: GoldenFile
) -> bool:
    sizes = case_sizes(golden.tensors, info.case, info.step)
    for pattern in (entry.dump, entry.plus or entry.dump):
        tensor = dump.get(fill(pattern, info))
        if tensor is None:
            return False
        try:
            Fit(entry, info, tensor, sizes)
        except UsageError:
            return False
    return True
