"""The parameter names and shapes of a checkpoint: Hugging Face's, as the graph reads them."""

from __future__ import annotations

import math

from goldenctl.model.config import ModelConfig
from goldenctl.model.graph import Op, Sublayer, decoder, sizes

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every parameter that a forward pass reads, in execution order, with its shape.

    Linear weights are ``[out, in]``. With tied embeddings there is no ``lm_head.weight``.
    """
    size = sizes(config, batch=1, token=1)
    shapes: dict[str, tuple[int, ...]] = {}
    for sublayer in decoder(config, logits="all"):
        for op in sublayer.ops:
            for name in op.weights:
                shapes.setdefault(name, _shape(op, name, sublayer, size))
    return shapes


def _shape(op: Op, name: str, sublayer: Sublayer, size: dict[str, int]) -> tuple[int, ...]:
    """The shape of one of an op's weights, from the sizes of what it reads and yields."""
    inputs, output = sublayer.dims(op.inputs[0]), sublayer.dims(op.output)
    width = math.prod(size[dim] for dim in output)
    if op.kind == "expert_linear":
        return (size[output[-1]], size[inputs[-1]])
    if op.kind == "embedding":
        return (size["vocab"], width)
    if op.kind == "linear" and not name.endswith(".bias"):
        return (width, math.prod(size[dim] for dim in inputs))
    whole = op.kind == "linear" or op.attrs.get("merged")
    return (width,) if whole else (size[output[-1]],)
