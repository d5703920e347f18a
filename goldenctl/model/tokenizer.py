"""A checkpoint's tokenizer: a prompt's token ids as AutoTokenizer makes them, and their text.

The tokenizers package is imported only here. It panics on odd files, and may want gigabytes for a
short one: prompts are encoded in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.isolate import Refused, Worker, isolated
from goldenctl.model.auto_tokenizer import (
    AS_IT_IS,
    class_name,
    rebuilt,
    refuse_unknown,
    special_tokens,
)
from goldenctl.model.byte_tokenizer import byte_alphabet
from goldenctl.model.jsonfile import parse_object, read_object

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_BYTES = {char: byte for byte, char in enumerate(byte_alphabet())}
_BEFORE = "x"  # a token of no meaning: what is decoded after it keeps its first space


@dataclass(frozen=True)
class Encoded:
    """A prompt's tokens: their ids, each as text, and what those that stand for the prompt (not
    for its beginning or end) decode to.

    ``tokenizer`` is the class of transformers that made them where tokenizer.json alone makes
    others.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    decoded: str
    tokenizer: str = ""


def encode_apart(
    folder: Path, model_type: str, prompts: Sequence[tuple[str, str]]
) -> list[Encoded]:
    """Encode prompts, each with what it is called in errors, as ``PromptTokenizer`` does, in a
    process of its own.

    Raises what that raises, and DamagedError where the tokenizer crashes or wants too much.
    """
    with contextlib.suppress(ImportError):  # the process should import nothing
        import tokenizers  # noqa: F401
    try:
        answer = isolated(partial(_encode_all, folder, model_type, prompts))
    except Refused as error:
        message = f"{folder / TOKENIZER}: not a tokenizer ({error})"
        raise DamagedError(message) from error
    return msgspec.msgpack.decode(answer, type=list[Encoded])


def _encode_all(
    folder: Path, model_type: str, prompts: Sequence[tuple[str, str]], worker: Worker
) -> bytes:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads that a fork does not have
    tokenizer = PromptTokenizer(folder, model_type)
    found = []
    for source, prompt in prompts:
        worker.alive()
        try:
            found.append(tokenizer.encode(prompt))
        except UsageError as error:
            message = f"{source}: {error.message}"
            raise UsageError(message, hint=error.hint) from error
    return msgspec.msgpack.encode(found)


class PromptTokenizer:
    """Encodes prompts as ``AutoTokenizer.from_pretrained(folder)(prompt)`` does."""

    def __init__(self, folder: Path, model_type: str) -> None:
        """Read ``tokenizer.json`` and what else AutoTokenizer reads.

        Raises MissingError without that file or the tokenizers package, DamagedError for a
        file that is not a tokenizer, and UsageError where AutoTokenizer cannot be followed.
        """
        path = folder / TOKENIZER
        if not path.is_file():
            message = f"{path}: there is no such file, so a prompt cannot be encoded"
            raise MissingError(message, hint="give --token-ids 1,2,3 instead")
        try:
            text = _read(path)
            self._plain = _from_text(text, path)
            self._tokenizer, self.name = _load(folder, text, model_type)
        except ImportError as error:
            message = "a prompt needs the tokenizers package, which is not installed"
            hint = "pip install 'goldenctl[record]', or give --token-ids 1,2,3 instead"
            raise MissingError(message, hint=hint) from error

    def encode(self, prompt: str) -> Encoded:
        """Return the tokens of the whole prompt; UsageError when it is not Unicode text."""
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            message = f"the prompt has a lone surrogate, {prompt[error.start]!r}, which is not text"
            raise UsageError(message) from error
        encoding = self._tokenizer.encode(prompt)
        own = [
            i
            for i, mask in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            if not mask
        ]
        decoded = self._tokenizer.decode(own, skip_special_tokens=False)
        tokens = tuple(map(self._text, encoding.tokens))
        ids = tuple(encoding.ids)
        alone = self.name == AS_IT_IS or tuple(self._plain.encode(prompt).ids) == ids
        return Encoded(ids, tokens, decoded, "" if alone else self.name)

    def _text(self, piece: str) -> str:
        """Return a token as text; one that is not a whole character as bytes, such as <0xE5>."""
        decoder = self._tokenizer.decoder
        if decoder is None:
            return piece
        text = str(decoder.decode([_BEFORE, piece]))
        if "\ufffd" in text and all(char in _BYTES for char in piece):
            return "".join(f"<0x{_BYTES[char]:02X}>" for char in piece)
        whole = text.startswith(_BEFORE) and "\ufffd" not in text and len(text) > len(_BEFORE)
        return text.removeprefix(_BEFORE) if whole else piece


def _load(folder: Path, text: str, model_type: str) -> tuple[Any, str]:
    """Return the tokenizer, and the name of the class of transformers that it is as."""
    path, settings = folder / TOKENIZER, _settings(folder)
    try:
        refuse_unknown(settings)
        declared = settings.get("tokenizer_class") or _declared_by_config(folder)
        name = class_name(model_type, declared, text)
        file = parse_object(text.encode(), f"{path}: not a tokenizer")
        made = text if name == AS_IT_IS else json.dumps(rebuilt(name, file, settings))
    except UsageError as error:
        message = f"{path}: {error.message}"
        raise UsageError(message, hint=error.hint) from error
    model = file.get("model")
    if isinstance(model, dict) and model.get("dropout") and name == AS_IT_IS:
        message = f"{path}: its BPE drops merges at random, so a prompt has no tokens of its own"
        raise UsageError(message, hint='set "dropout" to null in a copy')
    tokenizer = _from_text(made, path)
    tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens"))
    try:
        added = dict(_added(folder, file, settings))
        _add_tokens(tokenizer, added, list(special_tokens(name, settings, file)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the special tokens of {SETTINGS} or {TOKENIZER} are malformed ({error})"
        message = f"{folder}: {what}"
        raise DamagedError(message) from error
    return tokenizer, name


def _from_text(text: str, path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        message = f"{path}: not a tokenizer ({str(error)[:200]})"
        raise DamagedError(message) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}: not a tokenizer (it is not UTF-8 text)"
        raise DamagedError(message) from error


def _settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, with what older files say of special tokens."""
    path = folder / SETTINGS
    settings = read_object(path) if path.is_file() else {}
    older = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in settings and older.is_file():
        settings |= read_object(older)
    return settings


def _declared_by_config(folder: Path) -> str | None:
    path = folder / "config.json"
    declared = read_object(path).get("tokenizer_class") if path.is_file() else None
    return declared if isinstance(declared, str) else None


def _add_tokens(tokenizer: Any, added: dict[int, Any], named: list[Any]) -> None:
    """Add the tokens that AutoTokenizer adds, in its order: each gets the next free id."""
    there = tokenizer.get_added_tokens_decoder().values()
    known = {repr(token) for token in there}
    new = [added[number] for number in sorted(added) if repr(added[number]) not in known]
    names = {token.content for token in (*there, *new)}
    special = {_token(raw).content: _token(raw) for raw in named}
    new += [token for content, token in special.items() if content not in names]
    for token in new:
        token.special = token.special or token.content in special
    tokenizer.add_tokens(new)


def _added(
    folder: Path, file: dict[str, Any], settings: dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """Yield the added tokens and their ids, from the newest file that lists them."""
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        yield from ((int(number), _token(raw)) for number, raw in decoder.items())
        return
    older = folder / "added_tokens.json"
    if older.is_file():
        special = {_token(raw).content for raw in special_tokens(AS_IT_IS, settings, {})}
        for content, number in read_object(older).items():
            plain = content not in special
            yield number, _token({"content": content, "normalized": plain, "special": not plain})
    for raw in file.get("added_tokens", ()):
        yield raw["id"], _token({k: v for k, v in raw.items() if k != "id"})


def _token(raw: Any) -> Any:
    from tokenizers import AddedToken

    if isinstance(raw, str):
        return AddedToken(raw, special=True)
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(raw["content"], **{flag: raw[flag] for flag in flags if flag in raw})
