"""The catalogue of faults: what ports get wrong, each as a change of one op.

Where an engine has the faulty arithmetic itself (another epsilon, other tables, a missing
op), its own kernel computes it; where not, the op's ``fault`` attribute names the emulation in
``goldenctl.reference.faulty``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, constants, own_name
from goldenctl.model.rope import rope_of
from goldenctl.ops.derived import derived
from goldenctl.ops.faults import Change, Context, Fault
from goldenctl.ops.few_bits import FEW_BITS
from goldenctl.ops.table import ELEMENTARY


def _attrs(**attrs: object) -> Change:
    return lambda op, _context: replace(op, attrs={**op.attrs, **attrs})


def _emulated(name: str) -> Change:
    return lambda op, _context: replace(op, attrs={**op.attrs, "fault": name})


def _over_past(name: str) -> Change:
    """An emulated fault that only a step after the first can have."""
    return lambda op, context: _emulated(name)(op, context) if context.has_past else None


def _other_cache(op: Op, _context: Context) -> Op | None:
    """Values are read where keys belong, or keys where values do."""
    other = {"k_rope": "v_proj", "v_proj": "k_rope"}.get(own_name(op.inputs[1]))
    return None if other is None else _second_input(op, other)


def _keys_before_rope(op: Op, context: Context) -> Op:
    return _second_input(op, context.sublayer.producer("k_rope").inputs[0])


def _second_input(op: Op, tap: str) -> Op:
    """Read another tap, of as many steps."""
    first, second = op.inputs
    return replace(op, inputs=(first, second.replace(own_name(second), tap)))


def _copied(op: Op, _context: Context) -> Op:
    """The op is missing: its output is its first input."""
    return Op("copy", op.output, op.inputs[:1])


def _tables(**change: float) -> Change:
    def changed(op: Op, _context: Context) -> Op:
        x, positions, sin, cos = op.inputs
        return replace(op, inputs=(x, positions, derived(sin, **change), derived(cos, **change)))

    return changed


def _theta(theta: float) -> Change:
    tables = _tables(theta=theta)
    return lambda op, context: (
        None if rope_of(context.config, op.inputs[2]).rope_theta == theta else tables(op, context)
    )


def _other_tables(op: Op, context: Context) -> Op | None:
    """The tables of other layers, or of longer or shorter inputs."""
    x, positions, *own = op.inputs
    names = constants(context.config)
    others = [name for part in ("sin", "cos") for name in names if name.endswith(part)]
    others = [name for name in others if name not in own]
    return replace(op, inputs=(x, positions, *others)) if len(others) == 2 else None


def _window(change: int) -> Change:
    def changed(op: Op, context: Context) -> Op | None:
        window = op.attrs.get("window", 0)
        return _attrs(window=window + change)(op, context) if window > 1 else None

    return changed


def _no_window(op: Op, _context: Context) -> Op | None:
    return _without(op, "window")


def _no_embedding_scale(op: Op, _context: Context) -> Op | None:
    return _without(op, "scale")


def _exact_embedding_scale(op: Op, context: Context) -> Op | None:
    emulated = _emulated("embedding_scale_exact")
    return emulated(op, context) if "scale" in op.attrs else None


def _renormalised(rule: int) -> Change:
    """Weights of chosen experts that sum to one where they do not, or the other way round."""
    return _attrs(renormalise=rule)


def _one_choice_fewer(op: Op, context: Context) -> Op | None:
    choices = int(op.attrs["choices"])
    return _attrs(choices=choices - 1)(op, context) if choices > 1 else None


def _next_expert(op: Op, _context: Context) -> Op | None:
    return replace(op, weights=(*op.weights[1:], op.weights[0]))


def _one_expert_for_all(op: Op, _context: Context) -> Op | None:
    return replace(op, weights=(op.weights[0],) * len(op.weights))


def _swapped_in_one_expert(op: Op, _context: Context) -> Op | None:
    """Gate and up are swapped in one expert, whose tokens are wrong alone."""
    swap = {"expert_gate": ("gate_proj", "up_proj"), "expert_up": ("up_proj", "gate_proj")}
    if op.output not in swap:
        return None
    one = len(op.weights) // 2
    wrong = op.weights[one].replace(*swap[op.output])
    return replace(op, weights=(*op.weights[:one], wrong, *op.weights[one + 1 :]))


def _without(op: Op, attr: str) -> Op | None:
    """The op without one of its parameters; None where it has no such one."""
    kept = {name: value for name, value in op.attrs.items() if name != attr}
    return replace(op, attrs=kept) if attr in op.attrs else None


def _plain_weight(op: Op, _context: Context) -> Op | None:
    """The weight itself where 1 + w belongs."""
    plus_one = op.attrs.get("form") == "plus_one"
    return replace(op, attrs={**op.attrs, "form": "once"}) if plus_one else None


def _norm_before_sum(op: Op, context: Context) -> Op | None:
    """A norm behind the sublayer is left out of the sum: what it was given is added."""
    norms = {o.output: o for o in context.sublayer.ops if o.kind == "rms_norm"}
    norm = norms.get(op.inputs[-1])
    return None if norm is None else replace(op, inputs=(*op.inputs[:-1], *norm.inputs))


def _scale(power: float) -> Change:
    return lambda op, context: _attrs(scale=op.attrs["scale"] ** power)(op, context)


def _scale_by_head(op: Op, context: Context) -> Op | None:
    """Scaled by the size of a head where the config has another number."""
    return _attrs(scale=context.config.head_dim**-0.5)(op, context)


def _scale_by_hidden(op: Op, context: Context) -> Op | None:
    return _attrs(scale=context.config.hidden_size**-0.5)(op, context)


def _other_norm(op: Op, _context: Context) -> Op | None:
    """q_norm with k_norm's weight and the other way round."""
    other = {"q_norm": "k_norm", "k_norm": "q_norm"}.get(op.output)
    if other is None:
        return None
    return replace(op, weights=(op.weights[0].replace(op.output, other),))


def _norm_after_rope(op: Op, context: Context) -> Op | None:
    norms = {o.output: o for o in context.sublayer.ops if o.output in ("q_norm", "k_norm")}
    if op.output in norms:
        return _copied(op, context)
    norm = norms.get(op.output.replace("_rope", "_norm"))
    if op.kind != "rope" or norm is None:
        return None
    attrs = {**op.attrs, **norm.attrs, "fault": "norm_after_rope"}
    return replace(op, weights=norm.weights, attrs=attrs)


def _no_bias(op: Op, _context: Context) -> Op | None:
    return replace(op, weights=op.weights[:1]) if len(op.weights) == 2 else None


def _unmasked_padding(op: Op, _context: Context) -> Op:
    return replace(op, inputs=op.inputs[:1])


def _swapped_inputs(op: Op, _context: Context) -> Op:
    return replace(op, inputs=op.inputs[::-1])


def _transposed(op: Op, context: Context) -> Op | None:
    config = context.config
    rows = {
        "q_proj": config.num_attention_heads * config.head_dim,
        "k_proj": config.num_key_value_heads * config.head_dim,
        "v_proj": config.num_key_value_heads * config.head_dim,
        "o_proj": config.num_attention_heads * config.head_dim,
    }
    square = rows.get(op.output) == config.hidden_size
    return replace(op, attrs={**op.attrs, "transposed": True}) if square else None


def _layer_before(op: Op, _context: Context) -> Op | None:
    if op.output != "down_proj":
        return None
    layer = int(op.weights[0].split(".")[2])
    if layer == 0:
        return None
    names = tuple(name.replace(f".{layer}.", f".{layer - 1}.", 1) for name in op.weights)
    return replace(op, weights=names)


def _no_residual(op: Op, _context: Context) -> Op:
    return Op("copy", op.output, op.inputs[1:])


def _untied(op: Op, context: Context) -> Op | None:
    head = context.sublayer.name == "lm_head" and context.config.tie_word_embeddings
    return replace(op, attrs={**op.attrs, "fault": "untied"}) if head else None


def _k_tail(count: int) -> Change:
    def changed(op: Op, context: Context) -> Op | None:
        sizes = {
            "linear": _linear_inputs(op, context.config),
            "matmul_qk": context.config.head_dim,
        }
        return _emulated(f"k_tail_{count}")(op, context) if sizes[op.kind] > count else None

    return changed


def _linear_inputs(op: Op, config: ModelConfig) -> int:
    special = {
        "o_proj": config.num_attention_heads * config.head_dim,
        "down_proj": config.intermediate_size,
    }
    return special.get(op.output, config.hidden_size)


def _in_groups(name: str, size: int) -> Change:
    """A fault that only a sum of whole groups can have."""
    return lambda op, context: (
        _emulated(name)(op, context) if _linear_inputs(op, context.config) % size == 0 else None
    )


def _few_bits() -> Iterator[Fault]:
    for name, title, size in FEW_BITS:
        yield Fault(name, title, _LINEAR, _in_groups(name, size))


_NORM = ("rms_norm",)
_LINEAR = ("linear",)
_GATED = ("swiglu", "geglu")
_EXPERTS = ("expert_linear",)
_OVER_KEYS = ("matmul_qk", "matmul_pv")
_MATMULS = ("linear", *_OVER_KEYS)
_ANY = ELEMENTARY
_FLOAT = _ANY[1:]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("eps_1e-5", "norm epsilon 1e-5", _NORM, _attrs(epsilon=1e-5)),
        Fault("eps_1e-6", "norm epsilon 1e-6", _NORM, _attrs(epsilon=1e-6)),
        Fault("eps_outside", "epsilon outside the root", _NORM, _emulated("eps_outside")),
        Fault("no_norm", "norm missing", _NORM, _copied),
        Fault("norm_swapped", "q_norm and k_norm swapped", _NORM, _other_norm),
        Fault("norm_after_rope", "q/k norm after RoPE", ("rms_norm", "rope"), _norm_after_rope),
        Fault("norm_weight_plain", "w for 1 + w in the norm", _NORM, _plain_weight),
        Fault("norm_weight_plus_1", "norm weight + 1", _NORM, _emulated("norm_weight_plus_1")),
        Fault("no_rope", "RoPE missing", ("rope",), _copied),
        Fault("theta_1e4", "RoPE theta 1e4", ("rope",), _theta(1e4)),
        Fault("theta_1e6", "RoPE theta 1e6", ("rope",), _theta(1e6)),
        Fault("rope_interleaved", "interleaved RoPE", ("rope",), _attrs(algo="gptj")),
        Fault("rope_halves", "RoPE of halves", ("rope",), _attrs(algo="neox")),
        Fault("rope_other_tables", "RoPE tables of other layers", ("rope",), _other_tables),
        Fault("rope_position_plus_1", "RoPE position + 1", ("rope",), _tables(shift=1)),
        Fault("rope_position_minus_1", "RoPE position - 1", ("rope",), _tables(shift=-1)),
        Fault("rope_half", "RoPE on one half only", ("rope",), _tables(half=1)),
        Fault("rope_float64", "RoPE tables in float64", ("rope",), _tables(exact=1)),
        Fault("rope_angles_float64", "RoPE angles in float64", ("rope",), _tables(exact=2)),
        Fault(
            "rope_restarts",
            "RoPE positions restart with each step",
            ("rope",),
            _over_past("rope_restarts"),
        ),
        Fault("no_scale", "attention scale missing", ("matmul_qk",), _attrs(scale=1.0)),
        Fault("scale_twice", "attention scale applied twice", ("matmul_qk",), _scale(2.0)),
        Fault("scale_by_head", "scaled by head size", ("matmul_qk",), _scale_by_head),
        Fault("scale_by_hidden", "scaled by hidden size", ("matmul_qk",), _scale_by_hidden),
        Fault(
            "mask_plus_1",
            "mask shows one token more",
            ("causal_softmax",),
            _emulated("mask_plus_1"),
        ),
        Fault(
            "mask_minus_1",
            "mask hides one token more",
            ("causal_softmax",),
            _emulated("mask_minus_1"),
        ),
        Fault("no_mask", "causal mask missing", ("causal_softmax",), _emulated("no_mask")),
        Fault(
            "mask_without_past",
            "causal mask ignores earlier steps",
            ("causal_softmax",),
            _over_past("mask_without_past"),
        ),
        Fault("no_padding_mask", "padding not masked", ("causal_softmax",), _unmasked_padding),
        Fault("no_window", "sliding window missing", ("causal_softmax",), _no_window),
        Fault("window_plus_1", "window shows one token more", ("causal_softmax",), _window(1)),
        Fault("window_minus_1", "window hides one token more", ("causal_softmax",), _window(-1)),
        Fault(
            "kv_modulo",
            "kv heads by modulo instead of repeated",
            _OVER_KEYS,
            _emulated("kv_modulo"),
        ),
        Fault(
            "kv_wrong_head",
            "one query head reads the wrong kv head",
            _OVER_KEYS,
            _emulated("kv_wrong_head"),
        ),
        Fault("key_value_swapped", "keys and values swapped", _OVER_KEYS, _other_cache),
        Fault("keys_before_rope", "keys cached before RoPE", ("matmul_qk",), _keys_before_rope),
        Fault("cache_lost", "cache of earlier steps lost", _OVER_KEYS, _over_past("cache_lost")),
        Fault(
            "cache_not_written",
            "this step not in the cache",
            _OVER_KEYS,
            _over_past("cache_not_written"),
        ),
        Fault(
            "cache_one_early",
            "cache written one token early",
            _OVER_KEYS,
            _over_past("cache_one_early"),
        ),
        Fault("stale_last_token", "last token stale", _FLOAT, _emulated("stale_last_token")),
        Fault("zero_row", "one token's row zero", _FLOAT, _emulated("zero_row")),
        Fault("duplicate_row", "one token's row duplicated", _FLOAT, _emulated("duplicate_row")),
        Fault("gate_up_swapped", "gate and up swapped", _GATED, _swapped_inputs),
        Fault("gelu", "GELU for SiLU", ("swiglu",), _emulated("gelu")),
        Fault("gelu_erf", "exact GELU for its tanh form", ("geglu",), _emulated("gelu")),
        Fault("silu", "SiLU for GELU", ("geglu",), _emulated("silu")),
        Fault("quick_gelu", "quick-GELU", _GATED, _emulated("quick_gelu")),
        Fault("no_activation", "activation missing", _GATED, _emulated("no_activation")),
        Fault("no_norm_behind", "norm behind the sublayer missing", ("add",), _norm_before_sum),
        Fault("no_residual", "residual missing", ("add",), _no_residual),
        Fault("residual_doubled", "residual added twice", ("add",), _emulated("residual_doubled")),
        Fault(
            "softmax_after_topk",
            "softmax after the choice of experts",
            ("route",),
            _renormalised(1),
        ),
        Fault(
            "routing_not_renormalised",
            "experts' weights not renormalised",
            ("route",),
            _renormalised(0),
        ),
        Fault("one_expert_fewer", "one expert fewer", ("route",), _one_choice_fewer),
        Fault("wrong_expert", "each expert is the next one", _EXPERTS, _next_expert),
        Fault("one_expert_for_all", "one expert for all", _EXPERTS, _one_expert_for_all),
        Fault(
            "gate_up_swapped_in_one",
            "gate and up swapped in one expert",
            _EXPERTS,
            _swapped_in_one_expert,
        ),
        Fault(
            "experts_not_weighted",
            "experts summed without weights",
            ("expert_sum",),
            _emulated("experts_not_weighted"),
        ),
        Fault("no_bias", "bias dropped", _LINEAR, _no_bias),
        Fault("weight_transposed", "weight not transposed", _LINEAR, _transposed),
        Fault("k_tail_16", "last 16 of K dropped", ("linear", "matmul_qk"), _k_tail(16)),
        Fault("k_tail_32", "last 32 of K dropped", ("linear", "matmul_qk"), _k_tail(32)),
        Fault("k_tail_64", "last 64 of K dropped", ("linear", "matmul_qk"), _k_tail(64)),
        Fault("down_proj_before", "down_proj of the layer before", _LINEAR, _layer_before),
        Fault(
            "embedding_shifted",
            "embedding row shifted by one",
            ("embedding",),
            _emulated("embedding_shifted"),
        ),
        Fault(
            "no_embedding_scale",
            "embedding scale missing",
            ("embedding",),
            _no_embedding_scale,
        ),
        Fault(
            "embedding_scale_exact",
            "embedding scale not rounded",
            ("embedding",),
            _exact_embedding_scale,
        ),
        Fault("untied_head", "tied head not tied", _LINEAR, _untied),
        Fault("scale_1.02", "output scaled by 1.02", _FLOAT, _emulated("scale_1.02")),
        Fault("scale_2", "output scaled by 2", _FLOAT, _emulated("scale_2")),
        Fault("truncated", "truncated instead of rounded", _FLOAT, _emulated("truncated")),
        Fault("biased_2_units", "two units too large", _FLOAT, _emulated("biased_2_units")),
        *_few_bits(),
        Fault(
            "bf16_accumulation", "sums made in bfloat16", _MATMULS, _emulated("bf16_accumulation")
        ),
        Fault("fp16_overflow", "overflow in float16", _FLOAT, _emulated("fp16_overflow")),
        Fault("one_nan", "one NaN", _FLOAT, _emulated("one_nan")),
        Fault("one_inf", "one Inf", _FLOAT, _emulated("one_inf")),
        Fault("nan_row", "one row of NaN", _FLOAT, _emulated("nan_row")),
    )
}
