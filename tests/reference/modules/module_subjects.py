"""Tiny models and their inputs, as ``goldenctl record --module`` takes them."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from goldenctl.golden.file import GoldenFile

Made = tuple[nn.Module, Any]
# Records a function of this module by its name, with budgets.
Recorded = Callable[[str], GoldenFile]


@dataclass
class Yielded:
    a: Tensor
    pair: tuple[Tensor, Tensor | None]


class Block(nn.Module):
    """Calls a layer twice and changes what it yielded in place."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: Tensor, *, scale: Tensor) -> Yielded:
        y = self.lin(self.norm(x))
        y.add_(1)
        y = self.lin(y)
        return Yielded(x + y * scale, (y.argmax(-1), None))


class Net(nn.Module):
    """Two names for one block, which is called under both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.again = self.first
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scale = torch.tensor(0.5)
        x = self.first(x, scale=scale).a
        x = self.again(x, scale=scale).a
        return {"y": self.out(x)}


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def toy() -> Made:
    torch.manual_seed(0)
    return Net().eval(), seeded(2, 4, 8)


class Odd(nn.Module):
    """One module that draws random numbers, one that casts, one of plain arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.cast = Cast()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(self.cast(x)) + 0 * self.drop(x).sum()  # type: ignore[no-any-return]


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(x.dtype) * 3


def odd() -> Made:
    torch.manual_seed(0)
    return Odd().train(), (seeded(4, 8),)


def two_steps() -> Made:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), [seeded(2, 8), seeded(3, 8)]


def nothing() -> None:
    return None


def no_module() -> Any:
    return 3, seeded(2)


def raising() -> Made:
    message = "no weights here"
    raise OSError(message)


def of_complex_numbers() -> Made:
    class Rotate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_complex(x)

    return Rotate(), seeded(4, 2)


def wrong_shape() -> Made:
    return nn.Linear(8, 8), seeded(2, 7)


def _of(model: str, config: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    kind: Any = getattr(transformers, model)
    made: nn.Module = kind(getattr(transformers, config)(**settings)).eval()
    return made


def vit() -> Made:
    model = _of(
        "ViTModel", "ViTConfig", hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, image_size=16, patch_size=8, attn_implementation="eager",
    )  # fmt: skip
    return model, {"pixel_values": seeded(1, 3, 16, 16)}


def whisper() -> Made:
    model = _of(
        "WhisperModel", "WhisperConfig", d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_mel_bins=8, max_source_positions=8, vocab_size=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        max_target_positions=16,
    )  # fmt: skip
    ids = torch.tensor([[1, 5, 7, 9]])
    return model, {"input_features": seeded(1, 8, 16), "decoder_input_ids": ids}


_TEXT = {"hidden_size": 16, "vocab_size": 32, "max_position_embeddings": 32}


def deepseek() -> Made:
    """Latent attention, and experts in groups behind a dense layer."""
    model = _of(
        "DeepseekV3ForCausalLM", "DeepseekV3Config", **_TEXT, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
        moe_intermediate_size=8, n_routed_experts=4, n_group=2, topk_group=1,
        num_experts_per_tok=2, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=4, first_k_dense_replace=1,
    )  # fmt: skip
    return model, {"input_ids": torch.arange(8)[None], "use_cache": False}


def qwen3_next() -> Made:
    """A gated delta rule, then attention, each with experts."""
    model = _of(
        "Qwen3NextForCausalLM", "Qwen3NextConfig", **_TEXT, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=32,
        moe_intermediate_size=8, shared_expert_intermediate_size=8, num_experts=4,
        num_experts_per_tok=2, linear_num_key_heads=2, linear_num_value_heads=2,
        linear_key_head_dim=4, linear_value_head_dim=4,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    return model, {"input_ids": torch.arange(8)[None], "use_cache": False}


FAMILIES: dict[str, Callable[[], Made]] = {
    "vit": vit,
    "whisper": whisper,
    "deepseek": deepseek,
    "qwen3_next": qwen3_next,
}


def faulty_vit() -> Made:
    """A port with attention scores that are scaled wrongly in layer 0, and weights in 8 bits."""
    model, inputs = vit()
    modules: Any = dict(model.named_modules())
    modules["layers.0.attention"].scaling *= 1.02
    weight = modules["layers.1.mlp.fc1"].weight.data
    step = weight.abs().amax(1, keepdim=True) / 127
    weight.copy_((weight / step).round() * step)
    return model, inputs


def tanh_vit() -> Made:
    """A port with the other GELU in layer 1."""
    model, inputs = vit()
    modules: Any = dict(model.named_modules())
    gelu = modules["layers.1.mlp.activation_fn"]
    gelu.forward = types.MethodType(lambda _, x: F.gelu(x, approximate="tanh"), gelu)
    return model, inputs
