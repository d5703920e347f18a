"""What transformers' AutoTokenizer makes of a checkpoint's files, told as a tokenizer.json.

Facts of transformers 5.24, for the families that goldenctl knows. It takes tokenizer.json as it
is for most classes; a few classes of its own take only vocabulary, merges and post-processor from
the file and put their own parts around them. Truncation and padding never apply to a call without
options, nor do ``add_bos_token`` and ``add_eos_token`` where tokenizer.json is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from goldenctl.errors import UsageError
from goldenctl.model.fields import show

Json = dict[str, Any]
AS_IT_IS = "TokenizersBackend"
_LLAMA, _QWEN, _GPT2, _NEOX = (
    "LlamaTokenizer",
    "Qwen2Tokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
)
_GENERIC = (AS_IT_IS, "PreTrainedTokenizer", "PythonBackend", "BloomTokenizer")
_OWN_CLASS = {"qwen2": _QWEN, "qwen3": _QWEN}  # by model_type; mistral and llama have none
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_HINT = "give --token-ids 1,2,3 instead"


@dataclass(frozen=True)
class _Class:
    """The parts that a class of transformers makes itself, from tokenizer_config.json.

    ``special`` are its special tokens where that file names none; ``model`` what its BPE has
    besides vocabulary and merges.
    """

    parts: Callable[[Json], Json]
    special: dict[str, str | None]
    model: Json


def class_name(model_type: str, declared: str | None, tokenizer_json: str) -> str:
    """Return the class that AutoTokenizer takes: AS_IT_IS, or one that rebuilds the tokenizer.

    ``declared`` is what tokenizer_config.json says, or else config.json. Raises UsageError for
    a class that is not known here.
    """
    own = _OWN_CLASS.get(model_type)
    name = (declared or own or AS_IT_IS).removesuffix("Fast")
    if model_type == "mistral":
        return AS_IT_IS
    if model_type == "qwen2":
        return _QWEN
    if name == _LLAMA and '"ByteLevel"' in tokenizer_json:
        return AS_IT_IS
    if name not in (*_GENERIC, *_CLASSES):
        message = f"tokenizer_class {show(declared)}: how it makes tokens is not known to goldenctl"
        raise UsageError(message, hint=_HINT)
    return AS_IT_IS if name in _GENERIC else name


def rebuilt(name: str, file: Json, settings: Json) -> Json:
    """Return the tokenizer.json that a class makes of the checkpoint's own."""
    made, model = _CLASSES[name], file.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        message = f"AutoTokenizer takes it for a {name}, which is BPE, but it is {show(kind)}"
        hint = "set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json"
        raise UsageError(message, hint=f"{hint}, or give --token-ids 1,2,3")
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, **made.model}
    return {
        "version": "1.0",
        "added_tokens": [],
        "post_processor": file.get("post_processor"),
        "model": {**bpe, "vocab": model.get("vocab", {}), "merges": model.get("merges", [])},
        **made.parts(settings),
    }


def special_tokens(name: str, settings: Json, file: Json) -> Iterator[Any]:
    """Yield every special token that the class, the settings or the file's padding name, as text
    or as an object."""
    named = {**_padding(file), **(_CLASSES[name].special if name in _CLASSES else {}), **settings}
    for key in (*_NAMED, *(k for k in settings if k.endswith("_token") and k not in _NAMED)):
        if isinstance(named.get(key), (str, dict)):
            yield named[key]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    yield from extra.values() if isinstance(extra, dict) else extra


def _padding(file: Json) -> Json:
    padding = file.get("padding")
    return {"pad_token": padding.get("pad_token")} if isinstance(padding, dict) else {}


def refuse_unknown(settings: Json) -> None:
    """Raise UsageError for settings that make AutoTokenizer do what is not known here."""
    unknown = [key for key in ("auto_map", "init_inputs", "fix_mistral_regex") if settings.get(key)]
    files = settings.get("fast_tokenizer_files")
    if isinstance(files, list) and set(files) - {"tokenizer.json"}:
        unknown.append("fast_tokenizer_files")
    if unknown:
        message = f"{', '.join(unknown)}: what AutoTokenizer makes of it is not known to goldenctl"
        raise UsageError(message, hint=_HINT)


def _llama(settings: Json) -> Json:
    prefix = settings.get("add_prefix_space")
    scheme = "always" if settings.get("legacy", False) else "first"
    scheme = "never" if prefix is False else scheme
    strip = (
        [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix is not False else []
    )
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    steps = [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    decoder = {"type": "Sequence", "decoders": steps}
    return {"normalizer": None, "pre_tokenizer": space, "decoder": decoder}


def _byte_level(settings: Json, *, use_regex: bool = True) -> Json:
    prefix = bool(settings.get("add_prefix_space"))
    level = {"type": "ByteLevel", "trim_offsets": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {**level, "add_prefix_space": prefix, "use_regex": use_regex},
        "decoder": {**level, "add_prefix_space": True, "use_regex": True},
    }


def _qwen(settings: Json) -> Json:
    level = _byte_level(settings, use_regex=False)
    split = {"type": "Split", "pattern": {"Regex": _QWEN_PATTERN}, "behavior": "Isolated"}
    steps = [{**split, "invert": False}, level["pre_tokenizer"]]
    together = {"type": "Sequence", "pretokenizers": steps}
    return {**level, "normalizer": {"type": "NFC"}, "pre_tokenizer": together}


_END = "<|endoftext|>"
_PLAIN = {"continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
_CLASSES = {
    _LLAMA: _Class(
        _llama,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        {"fuse_unk": True, "byte_fallback": True},
    ),
    _QWEN: _Class(_qwen, {"eos_token": _END, "unk_token": _END, "pad_token": _END}, _PLAIN),
    _GPT2: _Class(
        _byte_level,
        {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": None},
        _PLAIN,
    ),
}
