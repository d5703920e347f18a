"""The outside truth: every tensor of Hugging Face's own eager model, by goldenctl's names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, DynamicCache

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.golden.steps import Step, attention_mask, position_ids, steps
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.reference.record import Recording, record
from goldenctl.reference.weights import from_numpy

# One unit more or less in the cosines grows to 4e-6 in four layers; a wrong epsilon is more.
FLOAT32_RELATIVE_L2 = 4e-6

PLAIN = {
    "self_attn.o_proj": "attention/o_proj",
    "mlp.gate_proj": "mlp/gate_proj",
    "mlp.up_proj": "mlp/up_proj",
    "mlp.down_proj": "mlp/down_proj",
}
HEADS = ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm")
# By model_type: a layer's norms that belong to its attention, and the first module of its mlp.
NORMS = {
    "gemma3_text": (
        ("input_layernorm", "post_attention_layernorm"),
        "pre_feedforward_layernorm",
    ),
    "olmo2": (("post_attention_layernorm",), "mlp"),
    "glm4": (("input_layernorm", "post_self_attn_layernorm"), "post_attention_layernorm"),
}
OTHER_NORMS = (("input_layernorm",), "post_attention_layernorm")
GELU = ("gemma3_text",)
HEADS_FIRST = ("gemma3_text",)  # its norms see [batch, head, token, head_dim]


class _FirstProduct(TorchFunctionMode):
    """Keeps what the first multiplication inside it yields: scores times the scale."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.value is None and getattr(func, "__name__", "") in ("mul", "__mul__"):
            self.value = result
        return result


def load_outside(checkpoint: Path, dtype: torch.dtype) -> Any:
    """Load transformers' model with its eager attention."""
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


def outside_truth(model: Any, ids: Sequence[Sequence[int]], **options: Any) -> dict[str, Tensor]:
    """Run transformers over ``[batch, token]`` ids; return its tensors by goldenctl's paths.

    Paths start below the step: ``layers/00/attention/q_proj``. ``lm_head/output`` is of
    every token. ``key`` and ``value`` are the step's part of the cache. ``options`` are
    arguments of the model, such as the ``cache`` of the steps before.
    """
    seen: dict[str, Tensor] = {}
    modeling = importlib.import_module(type(model).__module__)
    layers = iter(range(len(model.model.layers)))
    originals = modeling.apply_rotary_pos_emb, modeling.eager_attention_forward
    hooks = _hook(model, seen)
    modeling.apply_rotary_pos_emb = _wrapped_rotary(originals[0], seen)
    modeling.eager_attention_forward = _wrapped_attention(originals[1], seen, layers)
    try:
        with torch.inference_mode():
            options = {"cache": DynamicCache(), **options}  # one that forgets nothing
            result = model(input_ids=torch.tensor(ids), use_cache=True, **options)
    finally:
        modeling.apply_rotary_pos_emb, modeling.eager_attention_forward = originals
        for hook in hooks:
            hook.remove()
    for index, layer in enumerate(result.past_key_values.layers):
        own = slice(-len(ids[0]), None)
        seen[f"layers/{index:02d}/attention/key"] = layer.keys.transpose(1, 2)[:, own]
        seen[f"layers/{index:02d}/attention/value"] = layer.values.transpose(1, 2)[:, own]
    return seen


def _hook(model: Any, seen: dict[str, Tensor]) -> list[Any]:
    hooks: list[Any] = []
    transposed = ("q_norm", "k_norm") if model.config.model_type in HEADS_FIRST else ()

    def output(module: Any, name: str, head_dim: int = 0) -> None:
        def keep(_module: Any, _inputs: Any, value: Any) -> None:
            value = value[0] if isinstance(value, tuple) else value
            if head_dim and value.dim() == 3:
                value = value.unflatten(-1, (-1, head_dim))
            seen[name] = value.transpose(1, 2) if name[-6:] in transposed else value

        hooks.append(module.register_forward_hook(keep))

    def entry(module: Any, *names: str) -> None:
        def keep(_module: Any, inputs: Any) -> None:
            seen.update(dict.fromkeys(names, inputs[0]))

        hooks.append(module.register_forward_pre_hook(keep))

    output(model.model.embed_tokens, "embedding/output")
    output(model.model.norm, "final_norm/output")
    entry(model.model.norm, "final_norm/input")
    output(model.lm_head, "lm_head/output")
    entry(model.lm_head, "lm_head/input")

    def parts(module: Any, root: str, head_dim: int, **widths: int) -> None:
        """What several taps come out of as one, along the last axis; heads of self_attn."""

        def keep(_module: Any, _inputs: Any, value: Tensor) -> None:
            for name, part in zip(widths, value.split(list(widths.values()), -1), strict=True):
                where = f"{root}/{name.replace('__', '/')}"
                seen[where] = part.unflatten(-1, (-1, head_dim)) if "attention" in name else part

        hooks.append(module.register_forward_hook(keep))

    family = model.config.model_type
    attention_norms, mlp = NORMS.get(family, OTHER_NORMS)
    for index, layer in enumerate(model.model.layers):
        root = f"layers/{index:02d}"
        attention, head_dim = layer.self_attn, layer.self_attn.head_dim
        names = {name for name, _ in layer.named_modules()}
        for path, name in PLAIN.items():
            if path in names:
                output(layer.get_submodule(path), f"{root}/{name}")
        for name, child in layer.named_children():
            if name.endswith("norm"):
                output(child, f"{root}/{'attention' if name in attention_norms else 'mlp'}/{name}")
        for name in HEADS:
            if hasattr(attention, name):
                output(getattr(attention, name), f"{root}/attention/{name}", head_dim)
        if hasattr(attention, "qkv_proj"):
            config = model.config
            q, kv = (n * head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
            parts(
                attention.qkv_proj,
                root,
                head_dim,
                attention__q_proj=q,
                attention__k_proj=kv,
                attention__v_proj=kv,
            )
        if hasattr(layer.mlp, "gate_up_proj"):
            width = layer.mlp.gate_up_proj.out_features // 2
            parts(layer.mlp.gate_up_proj, root, head_dim, mlp__gate_proj=width, mlp__up_proj=width)
        entry(layer, f"{root}/attention/input")
        entry(getattr(layer, mlp), f"{root}/attention/output", f"{root}/mlp/input")
        if hasattr(layer.mlp, "experts"):
            hooks += _hook_experts(layer.mlp, f"{root}/mlp", seen)
        else:
            entry(layer.mlp.down_proj, f"{root}/mlp/{'geglu' if family in GELU else 'swiglu'}")
        output(layer, f"{root}/mlp/output")
    return hooks


def _hook_experts(mlp: Any, root: str, seen: dict[str, Tensor]) -> list[Any]:
    """Keep the router's choice as weights of all experts, and what each chosen expert yields,
    [batch, token, choice, ...] in the order of the experts' numbers."""
    products = _Products()

    def keep_choice(_module: Any, _inputs: Any, value: Any) -> None:
        logits, weights, index = value
        products.index = index
        products.shape = seen[f"{root}/post_attention_layernorm"].shape[:2]
        routing = torch.zeros_like(logits).scatter(-1, index, weights)
        seen[f"{root}/router_logits"] = logits.unflatten(0, products.shape)
        seen[f"{root}/routing"] = routing.unflatten(0, products.shape)
        products.__enter__()

    def keep_products(module: Any, _inputs: Any, value: Tensor) -> None:
        products.__exit__(None, None, None)
        both = products.of(module.gate_up_proj)
        gate, up = both.chunk(2, -1)
        seen[f"{root}/expert_gate"], seen[f"{root}/expert_up"] = gate, up
        seen[f"{root}/expert_swiglu"] = products.of(module.down_proj, given=True)
        seen[f"{root}/expert_down"] = products.of(module.down_proj)
        seen[f"{root}/experts"] = value.unflatten(0, products.shape)

    gate = mlp.gate.register_forward_hook(keep_choice)
    return [gate, mlp.experts.register_forward_hook(keep_products)]


class _Products(TorchFunctionMode):
    """Keeps every linear layer that runs inside it, by the address of its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, tuple[Tensor, Tensor]] = {}
        self.index = torch.empty(0)
        self.shape: Any = ()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "linear":
            self.calls[args[1].data_ptr()] = (args[0], result)
        return result

    def of(self, matrices: Tensor, *, given: bool = False) -> Tensor:
        """Return what the layers of the chosen experts were given, or yielded."""
        order = self.index.sort(-1)[1].sort(-1)[1]  # the slot of each of the router's choices
        out: Tensor | None = None
        for expert, matrix in enumerate(matrices):
            if matrix.data_ptr() not in self.calls:
                continue
            value = self.calls[matrix.data_ptr()][0 if given else 1]
            if out is None:
                out = torch.full((*self.index.shape, value.shape[-1]), torch.nan, dtype=value.dtype)
            position, token = torch.where((self.index == expert).T)
            out[token, order[token, position]] = value
        assert out is not None
        return out.unflatten(0, self.shape)


def _wrapped_rotary(rotate: Callable[..., Any], seen: dict[str, Tensor]) -> Callable[..., Any]:
    calls = iter(range(10_000))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        q, k = rotate(*args, **kwargs)
        root = f"layers/{next(calls):02d}/attention"
        seen[f"{root}/q_rope"], seen[f"{root}/k_rope"] = q.transpose(1, 2), k.transpose(1, 2)
        seen[f"{root}/cos"], seen[f"{root}/sin"] = args[2], args[3]
        return q, k

    return wrapped


def _wrapped_attention(
    attend: Callable[..., Any], seen: dict[str, Tensor], layers: Any
) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _FirstProduct() as product:
            context, probs = attend(*args, **kwargs)
        root = f"layers/{next(layers):02d}/attention"
        assert product.value is not None
        seen[f"{root}/scores"], seen[f"{root}/probs"] = product.value, probs
        seen[f"{root}/context"] = context
        return context, probs

    return wrapped


def recorded(
    checkpoint: Path, cases: list[Case], path: Path, dtype: str = "float32", **selection: Any
) -> GoldenFile:
    weights = Checkpoint.open(checkpoint)
    recording = Recording(
        weights,
        weights.config,
        cases,
        dtype,
        selection=Selection(**{"logits": "all", **selection}),
    )
    record(recording, path)
    return open_golden(path)


def outside_steps(model: Any, golden: GoldenFile, case: Case) -> dict[str, Tensor]:
    """Feed transformers each step's recorded tokens over its own cache; tensors by path."""
    cache = DynamicCache()
    found: dict[str, Tensor] = {}
    for step in steps(case):
        ids = golden.map(f"{step.path}/embedding/input").tolist()
        truth = outside_truth(model, ids, cache=cache, **inputs_of(step))
        found |= {f"{step.path}/{name}": v for name, v in without_tables(truth).items()}
    return found


def without_tables(truth: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in truth.items() if name[-4:] not in ("/cos", "/sin")}


def inputs_of(step: Step) -> dict[str, Tensor]:
    mask = attention_mask(step)
    inputs = {"position_ids": torch.from_numpy(position_ids(step)).long()}
    return inputs if mask is None else {**inputs, "attention_mask": torch.from_numpy(mask).long()}


def disagreeing(golden: GoldenFile, truth: dict[str, Tensor]) -> list[str]:
    return [name for name, expected in truth.items() if not agrees(golden, name, expected)]


def agrees(golden: GoldenFile, name: str, expected: Tensor) -> bool:
    value = from_numpy(np.array(golden.map(name)))
    if value.shape != expected.shape:
        return False
    if expected.dtype != torch.float32:
        return torch.equal(value, expected)
    difference = (value.double() - expected.double()).norm()
    return bool(difference <= FLOAT32_RELATIVE_L2 * expected.double().norm())
