"""The golden by module and the golden by op of one checkpoint hold the same tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goldenctl.commands.record import Compute, prepare
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.model.inputs import Inputs
from goldenctl.model.source import checkpoint_folder
from goldenctl.reference.modules.pretrained import Asked, Loading, from_checkpoint
from goldenctl.reference.modules.record import ModuleRecording, record_modules
from goldenctl.reference.record import record

TINY = "synth:tiny?seed=0"
ATTENTION = {
    "input_layernorm": "input_layernorm/output",
    **{tap: f"self_attn.{tap}/output" for tap in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{tap: f"self_attn.{tap}/output" for tap in ("q_norm", "k_norm")},
    "probs": "self_attn/output.1",
    "context": "self_attn.o_proj/input",
    "output": "post_attention_layernorm/input",
}
MLP = {
    "post_attention_layernorm": "post_attention_layernorm/output",
    **{tap: f"mlp.{tap}/output" for tap in ("gate_proj", "up_proj", "down_proj")},
    "swiglu": "mlp.down_proj/input",
}


def pairs(layers: int) -> dict[str, str]:
    """The names of one step's tensors by op, and what they are called by module."""
    found = {
        "embedding/output": "model.embed_tokens/output",
        "final_norm/output": "model.norm/output",
    }
    for n in range(layers):
        for sublayer, taps in (("attention", ATTENTION), ("mlp", MLP)):
            ours = f"layers/{n:02d}/{sublayer}"
            found |= {f"{ours}/{tap}": f"model.layers.{n}.{name}" for tap, name in taps.items()}
        found[f"layers/{n:02d}/mlp/output"] = f"model.layers.{n}/output"
    return found


def bits(golden: GoldenFile, name: str) -> bytes:
    return golden.verify(name).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_agree_bit_for_bit_in_prefill_and_decode(dtype: str, tmp_path: Path) -> None:
    inputs = Inputs(token_ids=("1,2,3",), decode=1)
    record(prepare(Path(TINY), inputs, compute=Compute(dtype=dtype)), tmp_path / "op.h5")
    asked = Asked(token_ids=("1,2,3",), decode=1)
    subject = from_checkpoint(checkpoint_folder(TINY), TINY, asked, Loading(dtype=dtype))
    record_modules(ModuleRecording(subject), tmp_path / "modules.h5")
    by_op, by_module = (open_golden(tmp_path / f"{name}.h5") for name in ("op", "modules"))
    for step in ("00", "01"):
        at = f"cases/tokens/steps/{step}"
        for ours, theirs in pairs(by_op.config.num_hidden_layers).items():
            assert bits(by_op, f"{at}/{ours}") == bits(by_module, f"{at}/{theirs}"), (step, ours)
        logits, every = by_op.map(f"{at}/lm_head/output"), by_module.map(f"{at}/lm_head/output")
        # The last token's alone are another product, whose sums may be made in another order.
        np.testing.assert_allclose(
            logits[:, -1].astype(np.float32), every[:, -1].astype(np.float32), rtol=1e-4, atol=1e-5
        )
