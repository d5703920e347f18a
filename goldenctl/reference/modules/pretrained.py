"""A checkpoint of any AutoModel class as a subject, loaded by transformers."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldenctl.digests import of_file
from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.golden.file import GoldenFile
from goldenctl.golden.schema import TensorInfo
from goldenctl.model.tokens import DEFAULT_PROMPT, random_ids
from goldenctl.places import step_path
from goldenctl.reference.modules.subject import Calls, Subject, fingerprint, fixed
from goldenctl.reference.modules.values import Given

_RANDOM_TOKENS = 16
_DECODER_TOKENS = 4


@dataclass(frozen=True)
class Asked:
    """What a checkpoint is to be given: prompts, rows of token ids, ``random_tokens`` of them,
    or the named tensors of a ``file`` (safetensors or npz); nothing at all is what fits the model.
    ``decode`` tokens follow, each the most likely one. ``texts`` are what the token ids
    were, ``names`` those of the cases."""

    prompts: Sequence[str] = ()
    token_ids: Sequence[str] = ()
    random_tokens: int | None = None
    seed: int = 0
    decode: int = 0
    file: Path | None = None
    texts: Sequence[str | None] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is loaded."""

    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "eager"


def from_checkpoint(folder: Path, source: str, asked: Asked, how: Loading) -> Subject:
    """Load a checkpoint as the class that its config names, and make its inputs.

    Raises MissingError without transformers, UsageError for what transformers does not load.
    """
    model, name = load(folder, how)
    cases: list[Mapping[str, Any]] = [{"name": "default"}]
    if asked.file is not None:
        calls = {"default": fixed([_of_file(asked.file, how)])}
        inputs = f"file:{of_file(asked.file)}"
    elif model.main_input_name == "input_ids":
        cases = _token_cases(folder, asked, model)
        calls = {str(case["name"]): _text(model, case, how) for case in cases}
        inputs = "tokens"
    else:
        if asked.prompts or asked.token_ids or asked.random_tokens or asked.decode:
            message = f"{folder}: {name} does not take tokens, but {model.main_input_name}"
            raise UsageError(message, hint="give it with --inputs FILE.safetensors or FILE.npz")
        calls = {"default": fixed([_random(model, asked.seed, how)])}
        inputs = f"random:{asked.seed}"
    about = {"path": source, "transformers": name, "inputs": inputs}
    return Subject(model, calls, about, cases)


def again(golden: GoldenFile, folder: Path, how: Loading) -> Subject:
    """Load the checkpoint of a golden, to be given what was recorded.

    Raises DamagedError when it is not the one recorded.
    """
    model, _ = load(folder, how)
    if how.dtype == golden.recipe["dtype"]:
        expected, actual = golden.recipe["model"]["fingerprint"], fingerprint(model)
        if expected != actual:
            message = f"{folder}: not the checkpoint that {golden.path} was recorded from"
            raise DamagedError(message, hint="pass the recorded one with --model-path")
    calls: dict[str, Calls] = {}
    for case in golden.recipe["cases"]:
        ids = f"cases/{case['name']}/token_ids"
        if ids in golden.tensors:
            known = {**case, "token_ids": golden.verify(ids).tolist()}
            calls[case["name"]] = _text(model, known, how)
        else:
            calls[case["name"]] = fixed([_recorded(golden, case["name"], how)])
    return Subject(model, calls, {})


def _recorded(golden: GoldenFile, case: str, how: Loading) -> Given:
    """Return the keyword arguments that the model was given, in the type of this model."""
    group = f"{step_path(case, 0)}/{golden.recipe['modules']['root']}"
    names = [n for n in (*golden.tensors, *golden.aliases) if n.startswith(f"{group}/input.")]
    kwargs = {}
    for name in names:
        value = torch.from_numpy(np.array(golden.verify(name), golden_numpy(golden.info(name))))
        cast = getattr(torch, how.dtype) if value.is_floating_point() else value.dtype
        kwargs[name.removeprefix(f"{group}/input.")] = value.to(how.device, cast)
    return Given((), kwargs)


def golden_numpy(info: TensorInfo) -> str:
    """The NumPy type that a tensor's values are handed on in."""
    return "float32" if info.dtype == "bfloat16" else info.dtype


def load(folder: Path, how: Loading) -> tuple[Any, str]:
    """Return the model and the name of its class."""
    if importlib.util.find_spec("transformers") is None:
        message = "--reference transformers: the transformers package is not installed"
        raise MissingError(message, hint="run: pip install transformers")
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not (folder / "config.json").is_file():
        message = f"{folder}: has no config.json"
        raise UsageError(message, hint="CHECKPOINT is a folder as save_pretrained writes it")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        name = (getattr(config, "architectures", None) or ["AutoModel"])[0]
        kind = getattr(transformers, name, transformers.AutoModel)
        model = kind.from_pretrained(
            folder,
            dtype=getattr(torch, how.dtype),
            attn_implementation=how.attention,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{folder}: transformers does not load it: {said}"
        raise UsageError(message) from error
    return model.eval().to(how.device), type(model).__name__


def _token_cases(folder: Path, asked: Asked, model: Any) -> list[Mapping[str, Any]]:
    """Return the cases with their token ids, ``[batch, token]``."""
    vocab = model.config.get_text_config(decoder=True).vocab_size
    rows: list[tuple[str, str | None, list[list[int]]]] = []
    many = len(asked.prompts) > 1
    for number, text in enumerate(asked.prompts, start=1):
        name = f"prompt-{number}" if many else "prompt"
        rows.append((name, text, [_encoded(folder, text)]))
    texts = asked.texts or [None] * len(asked.token_ids)
    many = len(asked.token_ids) > 1
    for number, (said, listed) in enumerate(zip(texts, asked.token_ids, strict=True), start=1):
        rows.append((f"tokens-{number}" if many else "tokens", said, _parsed(listed)))
    if asked.random_tokens is not None:
        drawn = random_ids(asked.random_tokens, vocab, asked.seed)
        rows.append((f"random-{asked.seed}", None, [list(drawn)]))
    if not rows and (folder / "tokenizer.json").is_file():
        rows = [("default", DEFAULT_PROMPT, [_encoded(folder, DEFAULT_PROMPT)])]
    elif not rows:
        rows = [("default", None, [list(random_ids(_RANDOM_TOKENS, vocab, asked.seed))])]
    for name, _, ids in rows:
        if max(map(max, ids)) >= vocab:
            message = f"case {name}: token id {max(map(max, ids))}: the model has {vocab} tokens"
            raise UsageError(message)
    decode = {"decode": asked.decode} if asked.decode else {}
    names = asked.names or [name for name, *_ in rows]
    return [
        {"name": name, **({"text": text} if text else {}), **decode, "token_ids": ids}
        for name, (_, text, ids) in zip(names, rows, strict=True)
    ]


def _encoded(folder: Path, text: str) -> list[int]:
    from goldenctl.model.jsonfile import read_object
    from goldenctl.model.tokenizer import PromptTokenizer

    kind = str(read_object(folder / "config.json").get("model_type", ""))
    return list(PromptTokenizer(folder, kind).encode(text).ids)


def _parsed(text: str) -> list[list[int]]:
    try:
        rows = [[int(word) for word in row.split(",")] for row in text.split(";")]
    except ValueError as error:
        message = f"--token-ids {text}: expected ids such as 1,2,3"
        raise UsageError(message) from error
    if len({len(row) for row in rows}) != 1 or min(map(min, rows)) < 0:
        message = f"--token-ids {text}: rows of one length of numbers from 0 on are needed"
        raise UsageError(message)
    return rows


def _text(model: Any, case: Mapping[str, Any], how: Loading) -> Calls:
    """Return the calls of one case: the prompt, then a token at a time over the cache."""
    ids = torch.tensor(case["token_ids"], device=how.device)
    if getattr(model.config, "is_encoder_decoder", False):
        first = _decoder_ids(model, ids)
        return fixed([Given((), {"input_ids": ids, "decoder_input_ids": first})])
    count = int(case.get("decode", 0))
    if not count:
        kwargs = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
        return fixed([Given((), {"input_ids": ids, **kwargs})])

    known = inspect.signature(model.forward).parameters
    cache = "cache" if "cache" in known else "past_key_values"  # as it was called before

    def calls() -> Generator[Given, Any, None]:
        output = yield Given((), {"input_ids": ids, "use_cache": True})
        for _ in range(count):
            token = output.logits[:, -1:].argmax(-1)
            output = yield Given((), {"input_ids": token, cache: output[cache], "use_cache": True})

    return calls


def _decoder_ids(model: Any, like: Tensor) -> Tensor:
    start = getattr(model.config, "decoder_start_token_id", None) or 0
    ids = torch.arange(start, start + _DECODER_TOKENS, device=like.device)
    return ids.remainder(model.config.get_text_config(decoder=True).vocab_size).expand(
        len(like), -1
    )


def _random(model: nn.Module, seed: int, how: Loading) -> Given:
    """Return seeded noise in the shape that the model's config asks for."""
    config: Any = model.config
    name = str(model.main_input_name)
    shape = _shape(config, name)
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)
    value = torch.from_numpy(drawn).to(how.device, getattr(torch, how.dtype))
    kwargs = {name: value}
    if getattr(config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = _decoder_ids(model, value)
    return Given((), kwargs)


def _shape(config: Any, name: str) -> tuple[int, ...]:
    vision = getattr(config, "vision_config", config)
    if name == "pixel_values" and hasattr(vision, "image_size"):
        size = vision.image_size
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        return (1, getattr(vision, "num_channels", 3), *sides)
    if name == "input_features" and hasattr(config, "max_source_positions"):
        return (1, config.num_mel_bins, 2 * config.max_source_positions)
    if name == "input_values":
        return (1, 16_000)
    message = f"{type(config).__name__}: what its input {name} looks like is not known"
    raise UsageError(message, hint="give it with --inputs FILE.safetensors or FILE.npz")


def _of_file(file: Path, how: Loading) -> Given:
    """Return the tensors of a file as keyword arguments; floats in the model's type."""
    if not file.is_file():
        message = f"--inputs {file}: there is no such file"
        raise UsageError(message)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            from safetensors.torch import load_file

            tensors = load_file(file)
    except Exception as error:
        message = f"--inputs {file}: cannot be read: {(str(error).splitlines() or [''])[0]}"
        raise UsageError(message) from error
    dtype = getattr(torch, how.dtype)
    return Given(
        (),
        {
            name: value.to(how.device, dtype if value.is_floating_point() else value.dtype)
            for name, value in tensors.items()
        },
    )
