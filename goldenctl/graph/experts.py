"""A mixture of experts: a router's choice, and the gated feed-forwards that it chose."""

from __future__ import annotations

from collections.abc import Iterator

from goldenctl.graph.blocks import Style, gated, linear
from goldenctl.graph.config import ModelConfig
from goldenctl.graph.ops import Op


def experts(config: ModelConfig, style: Style, layer: int, source: str) -> Iterator[Op]:
    """Softmax over all experts, the likeliest few, and the sum of what they yield by weight.

    ``routing`` has the weights of the chosen, zero for all others. What the chosen yield is in
    the order of their numbers. A layer without experts has one gated feed-forward.
    """
    if layer in config.dense_layers:
        yield from gated(config, style, layer, source)
        return
    prefix = f"model.layers.{layer}.mlp"
    choices = config.num_experts_per_tok
    rule = {"choices": choices, "renormalise": int(config.norm_topk_prob)}

    def of_each(tap: str, given: str, projection: str) -> Op:
        every = range(config.num_experts)
        weights = tuple(f"{prefix}.experts.{e}.{projection}.weight" for e in every)
        return Op("expert_linear", tap, (given, "routing"), weights, {"choices": choices})

    yield linear("router_logits", source, f"{prefix}.gate")
    yield Op("route", "routing", ("router_logits",), attrs=rule)
    yield of_each("expert_gate", source, "gate_proj")
    yield of_each("expert_up", source, "up_proj")
    yield Op(style.activation, "expert_swiglu", ("expert_up", "expert_gate"))
    yield of_each("expert_down", "expert_swiglu", "down_proj")
    yield Op("expert_sum", "experts", ("expert_down", "routing"), attrs={"choices": choices})
