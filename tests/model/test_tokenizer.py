"""Tokens of prompts, against transformers' AutoTokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers_of import KINDS, PROMPTS, SETTINGS, byte_level, clipped, with_added_tokens, write
from transformers import AutoTokenizer

from goldenctl.errors import DamagedError, GoldenctlError, UsageError
from goldenctl.model.config import preset_config, to_hf_dict
from goldenctl.model.inputs import Inputs
from goldenctl.model.tokenizer import Encoded, PromptTokenizer, encode_apart
from goldenctl.model.tokens import make_cases

MODELS = {"qwen3": "tiny", "qwen2": "qwen2-tiny", "llama": "llama-tiny", "mistral": "mistral-tiny"}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Return a folder with a config.json, and its model_type."""
    return _folder(tmp_path, request.param), request.param


def _folder(folder: Path, model_type: str) -> Path:
    config = to_hf_dict(preset_config(MODELS[model_type]))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _disagreeing(folder: Path, model_type: str) -> list[str]:
    ours, theirs = PromptTokenizer(folder, model_type), AutoTokenizer.from_pretrained(folder)
    return [p for p in PROMPTS if list(ours.encode(p).ids) != theirs(p)["input_ids"]]


@pytest.mark.parametrize("change", [str, clipped], ids=["plain", "truncation and padding"])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_every_kind_as_auto_tokenizer(
    model: tuple[Path, str], make: Callable[[], Tokenizer], change: Callable[[Any], Any]
) -> None:
    tokenizer = with_added_tokens(make())
    tokenizer = tokenizer if change is str else change(tokenizer)
    compared = []
    for name, settings in SETTINGS.items():
        write(model[0], tokenizer, settings)
        try:
            PromptTokenizer(*model)
        except UsageError as error:
            assert "which is BPE, but it is" in str(error) or name == "neox"  # noqa: PT017
            continue
        assert _disagreeing(*model) == [], name
        compared.append(name)
    assert len(compared) >= len(SETTINGS) - 1 or type(tokenizer.model).__name__ != "BPE"


OLDER: dict[str, dict[str, Any]] = {
    "special_tokens_map.json": {
        "bos_token": {"content": "<begin>", "lstrip": True, "rstrip": True, "normalized": False},
        "additional_special_tokens": ["<extra>", "<pad>"],
    },
    "added_tokens.json": {"<extra>": 910, "<pad>": 905, "lines": 920},
    "generation_config.json": {"bos_token_id": 1},
}


@pytest.mark.parametrize("settings", [None, {"bos_token": "<s>"}, {"added_tokens_decoder": {}}])
def test_older_files(model: tuple[Path, str], settings: dict[str, Any] | None) -> None:
    write(model[0], clipped(byte_level()), settings)
    for name, content in OLDER.items():
        (model[0] / name).write_text(json.dumps(content))
    assert _disagreeing(*model) == []


@pytest.mark.parametrize("declared", ["GPT2Tokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer"])
def test_config_json_may_declare_the_class(model: tuple[Path, str], declared: str) -> None:
    path = model[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": declared}))
    write(model[0], byte_level(), None)
    assert _disagreeing(*model) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer_class": "BertTokenizer"}, 'tokenizer_class "BertTokenizer": how it makes'),
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map: what AutoTokenizer makes"),
        ({"fix_mistral_regex": True}, "fix_mistral_regex: what AutoTokenizer makes"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "fast_tokenizer_files: what Auto"),
        ({"bos_token": {"text": 3}}, "are malformed"),
        ({"added_tokens_decoder": {"x": "y"}}, "are malformed"),
        ({"extra_special_tokens": 3}, "are malformed"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    write(_folder(tmp_path, "llama"), byte_level(), settings)
    with pytest.raises(GoldenctlError, match=message) as caught:
        PromptTokenizer(tmp_path, "llama")
    assert str(caught.value).startswith(str(tmp_path))


def test_dropout_makes_no_tokens_of_its_own(tmp_path: Path) -> None:
    write(_folder(tmp_path, "llama"), byte_level(), None)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["dropout"] = 0.1
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="drops merges at random"):
        PromptTokenizer(tmp_path, "llama")
    path.write_bytes(b"\xff")
    with pytest.raises(DamagedError, match="not a tokenizer"):
        PromptTokenizer(tmp_path, "llama")


def test_tokens_as_text(tmp_path: Path) -> None:
    write(_folder(tmp_path, "llama"), byte_level(), None)
    found = PromptTokenizer(tmp_path, "llama").encode("Hello, this is\n型🙂<|im_end|>")
    assert found.tokens[:3] == ("Hello", ",", " this")
    assert "".join(t for t in found.tokens if "<0x" not in t) == "Hello, this is\n型<|im_end|>"
    raw = "".join(t for t in found.tokens if "<0x" in t)
    assert bytes.fromhex(raw.replace("<0x", "").replace(">", "")).decode() == "🙂"
    assert found.decoded == "Hello, this is\n型🙂<|im_end|>"


def test_what_decodes_to_something_else_is_said(tmp_path: Path) -> None:
    config = preset_config("llama-tiny")
    for kind, prompt, decoded in (
        ("word pieces", "Hello,  Test", "hello, test"),
        ("unigram", "Hello", "hello"),
        ("words", "Hello xyz", "Hello <unk>"),
        ("sentencepiece BPE", " Hello xyz", None),
    ):
        write(_folder(tmp_path, "llama"), KINDS[kind](), None)
        (case,) = make_cases(Inputs(prompts=[prompt]), tmp_path, config)
        assert case.wording.decoded == (() if decoded is None else (decoded,))
        assert len(list(case.wording.notes())) == (decoded is not None)
        assert len(case.wording.tokens[0]) == case.prompt_length


def test_a_batch_keeps_the_tokens_of_its_texts(tmp_path: Path) -> None:
    tokenizer = clipped(KINDS["word pieces"]())
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    write(_folder(tmp_path, "llama"), tokenizer, None)
    prompts = tmp_path / "prompts"
    prompts.write_text("hello world , this is another test\nHello\n")
    inputs = Inputs(prompts_file=prompts, token_ids=["1,2"], batch=True)
    (case,) = make_cases(inputs, tmp_path, preset_config("llama-tiny"))
    ids = [AutoTokenizer.from_pretrained(tmp_path)(p)["input_ids"] for p in case.row_texts[:2]]
    assert [list(row[p:]) for row, p in zip(case.token_ids, case.padding, strict=True)] == [
        *ids,
        [1, 2],
    ]
    assert [len(row) for row in case.wording.tokens] == [len(ids[0]), len(ids[1]), 0]
    assert case.wording.decoded == (None, "hello", None)


def test_a_class_that_overrides_the_file_is_named_where_it_matters(tmp_path: Path) -> None:
    write(_folder(tmp_path, "qwen3"), byte_level(), None)
    config = preset_config("tiny")
    plain, odd = make_cases(Inputs(prompts=["Hello", "cafe\u0301 2026"]), tmp_path, config)
    assert list(plain.wording.notes()) == []
    assert odd.wording.tokenizer == "Qwen2Tokenizer"
    assert [note.split(";")[0] for note in odd.wording.notes()] == [
        'its tokens decode to "café 2026", not to the prompt',
        "tokens as AutoTokenizer's Qwen2Tokenizer makes them",
    ]


def test_a_lone_surrogate_is_no_text(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text('{"prompt": "a\\ud800b"}\n')
    with pytest.raises(UsageError, match=r"line 1: the prompt has a lone surrogate, '\\ud800'"):
        make_cases(Inputs(prompts_file=path), tiny, preset_config("tiny"))


class Panic(BaseException):
    """What the tokenizers package raises where it does not go on: no Exception."""


def panics(_self: PromptTokenizer, _prompt: str) -> Encoded:
    raise Panic


def hoards(_self: PromptTokenizer, _prompt: str) -> Encoded:
    return Encoded((len(bytes(2 << 30)),), (), "")


@pytest.mark.parametrize(("encode", "said"), [(panics, "crashed on it"), (hoards, "of memory")])
def test_a_tokenizer_that_panics_or_hoards_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Any, said: str
) -> None:
    write(_folder(tmp_path, "llama"), byte_level(), None)
    monkeypatch.setattr(PromptTokenizer, "encode", encode)
    with pytest.raises(DamagedError, match=f"tokenizer.json: not a tokenizer .*{said}"):
        encode_apart(tmp_path, "llama", [("prompt", "Hello")])


def test_encoding_apart_yields_the_same(tmp_path: Path) -> None:
    write(_folder(tmp_path, "llama"), byte_level(), None)
    prompts = ["Hello, this is\n型🙂<|im_end|>", ""]
    apart = encode_apart(tmp_path, "llama", [(f"prompt {p!r}", p) for p in prompts])
    assert apart == [PromptTokenizer(tmp_path, "llama").encode(prompt) for prompt in prompts]
    with pytest.raises(UsageError, match=r"^prompt 2: the prompt has a lone"):
        encode_apart(tmp_path, "llama", [("prompt 2", "\ud800")])
