"""Small tokenizers of every kind, trained on a few sentences, and what is in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "Hello, this is a test input. Hello world, this is another test.",
    "The sky is blue and the café is open; DON'T you'll we've it's I'M.",
    "numbers 1234567890 2026 12 123, code: def f(x):\n    return x + 1\n\n\n",
    "大型语言模型正在改变 软件 naïve résumé Ångström",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]

PROMPTS = [
    "Hello, a longer prompt",
    " leading and trailing ",
    "two  spaces\n\n\nlines\ttab",
    "<|im_start|>user\nhi <|im_end|> there<s>x</s>",
    "DON'T you'll 2026 numbers 12345",
    "cafe\u0301 naïve Å résumé 大型语言 模型 🙂",
    "<tool>x<tool>  <pad> a<mask>b <extra> wordy<word>word <word> x",
    "▁under ▁ score",
    "x" * 40 + " " + "y z " * 20,
    "",
    "\x00\u200b \ufeff",
]


def _trained(model: Any, trainer: Any, **parts: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level(**parts: Any) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL[3:], show_progress=False
    )
    plain = {
        "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "decoder": decoders.ByteLevel(),
    }
    return _trained(models.BPE(), trainer, **{**plain, **parts})


def byte_level_with_prefix_space() -> Tokenizer:
    return byte_level(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))


def byte_level_with_bos() -> Tokenizer:
    tokenizer = byte_level(normalizer=normalizers.NFKC())
    number = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", number)]
        ),
    ])  # fmt: skip
    return tokenizer


def _with_bos(tokenizer: Tokenizer) -> Tokenizer:
    pairs = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=pairs
    )
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """As older Llama files: a normalizer that prepends, byte fallback."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=[*SPECIAL[:3], *pieces], show_progress=False
    )
    return _with_bos(
        _trained(
            models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
            trainer,
            normalizer=normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            ),
            decoder=decoders.Sequence(
                [
                    decoders.Replace("▁", " "),
                    decoders.ByteFallback(),
                    decoders.Fuse(),
                    decoders.Strip(" ", 1, 0),
                ]
            ),
        )
    )


def metaspace_bpe() -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL[:3], show_progress=False)
    return _with_bos(
        _trained(
            models.BPE(unk_token="<unk>"),
            trainer,
            pre_tokenizer=pre_tokenizers.Metaspace(),
            decoder=decoders.Metaspace(),
        )
    )


def unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL[:3], unk_token="<unk>", show_progress=False
    )
    return _with_bos(
        _trained(
            models.Unigram(),
            trainer,
            normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
            pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"),
            decoder=decoders.Metaspace(),
        )
    )


def word_piece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=[*SPECIAL[:3], "[UNK]"], show_progress=False
    )
    return _with_bos(
        _trained(
            models.WordPiece(unk_token="[UNK]"),
            trainer,
            normalizer=normalizers.BertNormalizer(lowercase=True),
            pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            decoder=decoders.WordPiece(),
        )
    )


def words() -> Tokenizer:
    trainer = trainers.WordLevelTrainer(vocab_size=60, special_tokens=SPECIAL, show_progress=False)
    return _trained(
        models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizer=pre_tokenizers.Whitespace()
    )


KINDS = {
    "byte-level": byte_level,
    "byte-level, prefix space": byte_level_with_prefix_space,
    "byte-level, bos": byte_level_with_bos,
    "sentencepiece BPE": sentencepiece_bpe,
    "metaspace BPE": metaspace_bpe,
    "unigram": unigram,
    "word pieces": word_piece,
    "words": words,
}


def with_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Add tokens of every flag."""
    tokenizer.add_tokens(
        [AddedToken("<tool>", lstrip=True), AddedToken("<word>", single_word=True)]
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", rstrip=True, special=True)])
    return tokenizer


def clipped(tokenizer: Tokenizer) -> Tokenizer:
    """Turn truncation and padding on."""
    tokenizer.enable_truncation(4, stride=1)
    tokenizer.enable_padding(length=16, pad_token="<pad>", pad_id=0)
    return tokenizer


SETTINGS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "empty": {},
    "generic": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "bos and eos": {
        "tokenizer_class": "TokenizersBackend",
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
    },
    "new special": {
        "bos_token": "<begin>",
        "pad_token": "<pad>",
        "additional_special_tokens": ["<extra>", "<tool>"],
        "image_token": "wordy",
        "model_max_length": 5,
    },
    "added": {
        "added_tokens_decoder": {
            "900": {"content": "<extra>", "lstrip": True, "special": False},
            "901": {"content": "lines", "single_word": True, "normalized": True},
        },
        "eos_token": {"__type": "AddedToken", "content": "<eos>", "rstrip": True},
        "extra_special_tokens": {"tool_token": "<tool>"},
    },
    "split": {"split_special_tokens": True, "clean_up_tokenization_spaces": True},
    "llama": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "legacy": False},
    "llama, legacy": {
        "tokenizer_class": "LlamaTokenizerFast",
        "legacy": True,
        "add_bos_token": True,
    },
    "llama, no prefix": {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
    "qwen": {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>"},
    "qwen, prefix": {"tokenizer_class": "Qwen2TokenizerFast", "add_prefix_space": True},
    "gpt2": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True},
    "gpt2, prefix": {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
    "neox": {"tokenizer_class": "GPTNeoXTokenizer"},
}


def write(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any] | None) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    path.unlink(missing_ok=True)
    if settings is not None:
        path.write_text(json.dumps(settings))
