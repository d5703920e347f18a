"""GGUF files as checkpoints: config, tokenizer and dequantised weights in a folder of the cache.

Facts of llama.cpp's files: names of tensors and keys, the order of rows that it gives q and k of
llama models, and what ``tokenizer.ggml.pre`` says. Reading and dequantising are gguf's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.model.fields import show
from goldenctl.model.quantised import Made, Notify, Weight, floats_folder

if TYPE_CHECKING:
    from gguf import GGUFReader

_MODELS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_OF_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
}
_CONTROL, _USER = 3, 4  # kinds of tokens that are found in text before anything else
_NONE = object()
# How texts are split before BPE, by ``tokenizer.ggml.pre``.
_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {
        "type": "Sequence",
        "pretokenizers": [{**split, "invert": False}, {**_BYTES, "use_regex": False}],
    }


_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE: dict[str, dict[str, Any]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [_DIGITS, {**_BYTES, "use_regex": True}],
    },
    "qwen2": _split(_WORDS % r"\p{N}"),
    "llama-bpe": _split(_WORDS % r"\p{N}{1,3}"),
}


def gguf_folder(path: Path, notify: Notify) -> Path:
    """Return the folder of the cache with the model of a GGUF file, made where it is not there.

    Raises as ``GgufModel`` does.
    """
    model = GgufModel(path)
    return floats_folder([path], path, model.scheme, model.made, notify)


def _reader(path: Path) -> GGUFReader:
    if not path.is_file():
        message = f"{path}: there is no such file"
        raise MissingError(message)
    try:
        from gguf import GGUFReader
    except ImportError as error:
        message = f"{path}: reading it needs the gguf package"
        raise MissingError(message, hint="run: pip install 'goldenctl[gguf]'") from error
    try:
        return GGUFReader(path)
    except Exception as error:  # whatever the package raises, the file is what is wrong
        message = f"{path}: not a GGUF file that can be read: {error or type(error).__name__}"
        raise DamagedError(message) from error


class GgufModel:
    """What a GGUF file says of its model.

    Raises MissingError without the file or the gguf package, DamagedError for a malformed file,
    UsageError for an architecture that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = _reader(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._fields = reader.fields
        self._arch = str(self._get("general.architecture"))
        if self._arch not in _MODELS:
            message = f"{path}: general.architecture {show(self._arch)} is not supported"
            raise UsageError(message, hint=f"supported are {', '.join(_MODELS)}")

    @property
    def scheme(self) -> str:
        """The types of its tensors."""
        kinds = {tensor.tensor_type.name for tensor in self._tensors.values()}
        return f"gguf {', '.join(sorted(kinds))}"

    def made(self) -> Made:
        """Return config.json, the weights, and tokenizer.json where it can be made."""
        config = self._config()
        tokenizer = self._tokenizer()
        texts = {} if tokenizer is None else {"tokenizer.json": json.dumps(tokenizer).encode()}
        return config, self._weights(config), texts

    def _get(self, key: str, default: Any = _NONE) -> Any:
        field = self._fields.get(key)
        if field is not None:
            return field.contents()
        if default is _NONE:
            message = f"{self.path}: has no key {key}"
            raise DamagedError(message)
        return default

    def _own(self, key: str, default: Any = _NONE) -> Any:
        return self._get(f"{self._arch}.{key}", default)

    def _config(self) -> dict[str, Any]:
        sizes = {name: int(self._own(key)) for name, key in _SIZES.items()}
        heads = self._own("attention.head_count")
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None:
            message = f"{self.path}: has no tensor token_embd.weight"
            raise DamagedError(message)
        scaling = self._own("rope.scaling.type", "none")
        if scaling != "none" or "rope_freqs.weight" in self._tensors:
            message = f"{self.path}: scales its rotary frequencies, which is not supported here"
            raise UsageError(message, hint="record the model from its safetensors checkpoint")
        biased = "blk.0.attn_q.bias" in self._tensors
        return {
            "architectures": [_MODELS[self._arch]],
            "model_type": self._arch,
            "vocab_size": int(embedding.shape[1]),
            **sizes,
            "head_dim": int(self._own("attention.key_length", sizes["hidden_size"] // heads)),
            "rms_norm_eps": _shortest(self._own("attention.layer_norm_rms_epsilon")),
            "rope_theta": _shortest(self._own("rope.freq_base", 10000.0)),
            "hidden_act": "silu",
            "tie_word_embeddings": "output.weight" not in self._tensors,
            **({} if self._arch == "qwen2" else {"attention_bias": biased}),
            "torch_dtype": "float32",
        }

    def _weights(self, config: Mapping[str, Any]) -> dict[str, Weight]:
        weights = {}
        for name, tensor in self._tensors.items():
            means = _canonical(name)
            shape = tuple(int(size) for size in tensor.shape[::-1])
            permuted = self._arch == "llama" and re.search(r"\.attn_[qk]\.", name)
            head_dim = config["head_dim"] if permuted else 0
            weights[means] = Weight(shape, partial(_values, tensor, shape, head_dim))
        return weights

    def _tokenizer(self) -> dict[str, Any] | None:
        """Return the tokenizer.json: byte-level BPE, split as ``pre`` says; None for others."""
        split = _PRE.get(self._get("tokenizer.ggml.pre", ""))
        if self._get("tokenizer.ggml.model", "") != "gpt2" or split is None:
            return None
        tokens = self._get("tokenizer.ggml.tokens")
        kinds = self._get("tokenizer.ggml.token_type", [])
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [
            {"id": index, "content": token, **flags, "special": kind == _CONTROL}
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind in (_CONTROL, _USER)
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"} if self._arch != "llama" else None,
            "pre_tokenizer": split,
            "post_processor": None,
            "decoder": {**_BYTES, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {token: index for index, token in enumerate(tokens)},
                "merges": [m.split(" ", 1) for m in self._get("tokenizer.ggml.merges")],
            },
        }


def _canonical(name: str) -> str:
    """Return Hugging Face's name of a tensor; the file's own where it is none of the model's."""
    stem, _, kind = name.rpartition(".")
    if stem in _OF_MODEL:
        return f"{_OF_MODEL[stem]}.{kind}"
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer is None or layer[2] not in _OF_LAYER:
        return name
    return f"model.layers.{layer[1]}.{_OF_LAYER[layer[2]]}.{kind}"


def _values(tensor: Any, shape: tuple[int, ...], head_dim: int) -> NDArray[np.float32]:
    from gguf import dequantize

    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
    if not head_dim:
        return values
    # Rows come as the pairs 2i, 2i + 1 that rope turns there; Hugging Face has all first halves.
    pairs = values.reshape(-1, head_dim // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)


def _shortest(value: float) -> float:
    """Return the shortest decimal of what the file holds in float32: 1e-05, 9.999999747378752e-06
    there, is what its config.json said."""
    return float(str(np.float32(value)))
