"""Inputs become cases: names, encoding, and what is refused."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from goldenctl.errors import DamagedError, GoldenctlError, MissingError, UsageError
from goldenctl.model.case import Case
from goldenctl.model.config import preset_config
from goldenctl.model.inputs import Inputs
from goldenctl.model.tokens import DEFAULT_PROMPT, make_cases, random_ids

CONFIG = preset_config("tiny")


def _cases(folder: Path, **inputs: Any) -> tuple[Case, ...]:
    return make_cases(Inputs(**inputs), folder, CONFIG)


def test_default_prompt(tiny: Path) -> None:
    (case,) = _cases(tiny)
    assert (case.name, case.text) == ("default", DEFAULT_PROMPT)
    assert len(case.token_ids) == 1
    assert len(case.token_ids[0]) < len(DEFAULT_PROMPT)


def test_names_are_unique_and_in_order(tiny: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo {\n")
    cases = _cases(
        tiny,
        prompts=["a", "b"],
        prompts_file=prompts,
        token_ids=["1,2,3", " 4, 5;6,7"],
        random_tokens=5,
        seed=3,
    )
    assert [case.name for case in cases] == [
        "prompt-1",
        "prompt-2",
        "line-1",
        "line-3",
        "tokens-1",
        "tokens-2",
        "random-3",
    ]
    assert cases[3].text == "two {"
    assert cases[5].token_ids == ((4, 5), (6, 7))
    assert len(cases[6].token_ids[0]) == 5


def test_json_lines(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    items = [{"name": "long_one", "prompt": "x"}, {"token_ids": [1, 2]}, {"token_ids": [[1], [2]]}]
    path.write_text("\n".join(json.dumps(item) for item in items))
    cases = _cases(tiny, prompts_file=path)
    assert [case.name for case in cases] == ["long_one", "line-2", "line-3"]
    assert [case.token_ids for case in cases[1:]] == [((1, 2),), ((1,), (2,))]


def test_random_ids_never_change() -> None:
    assert random_ids(6, 512, 0) == random_ids(9, 512, 0)[:6]
    assert random_ids(4, 151936, 7) == (86667, 89621, 94562, 121922)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"token_ids": ["1,x"]}, 'token ids "1,x": expected numbers like 1,2,3'),
        ({"token_ids": [""]}, 'token ids "": expected numbers like 1,2,3'),
        ({"token_ids": ["-1"]}, "expected numbers like 1,2,3"),
        ({"token_ids": ["9" * 30]}, "expected numbers like 1,2,3"),
        ({"token_ids": ["512"]}, "token ids 1: token id 512 is outside 0..511"),
        ({"token_ids": ["1,2;3"]}, "token ids 1: the rows differ in length"),
        ({"token_ids": [",".join(["1"] * 513)]}, "token ids 1: 513 tokens (decode steps included)"),
        ({"prompts": [""]}, "prompt 1: there are no tokens"),
        ({"random_tokens": 0}, "random tokens: expected a count from 1 to 512, got 0"),
        ({"random_tokens": 513}, "random tokens: expected a count from 1 to 512, got 513"),
        ({"random_tokens": 4, "seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_refused(tiny: Path, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _cases(tiny, **inputs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no prompt"),
        (b"\xff", "is not UTF-8 text"),
        (
            b'{"a": 1}',
            "line 1: expected either prompt or token_ids, and optionally name, why, ",
        ),
        (b'{"prompt": "a", "token_ids": [1]}', "either prompt or token_ids"),
        (b'{"prompt": 1}', "line 1: prompt: expected a string"),
        (b'{"prompt": "a", "name": "../x"}', 'name "../x": expected up to 64 of a-z, 0-9'),
        (b'{"token_ids": "1"}', "token_ids: expected a list of integers"),
        (b'{"token_ids": [true]}', "token_ids: expected a list of integers"),
        (b'{"token_ids": []}', "line 1: there are no tokens"),
        (b'{"token_ids": [[1],2]}', "token_ids: expected a list of integers"),
        (b'{"token_ids": [-1]}', "token id -1 is outside 0..511"),
        (b'{"prompt": "a"', "line 1: not valid JSON"),
        (
            b'{"prompt": "a", "name": "x"}\n{"prompt": "b", "name": "x"}',
            "line 2: the case name x is taken already",
        ),
    ],
)
def test_bad_prompt_files(tiny: Path, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "prompts"
    path.write_bytes(content)
    with pytest.raises(GoldenctlError) as caught:
        _cases(tiny, prompts_file=path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_missing_prompts_file(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        _cases(tiny, prompts_file=tmp_path / "x")


def test_decode_steps_count(tiny: Path) -> None:
    ids = [",".join(["1"] * 510)]
    assert _cases(tiny, token_ids=ids, decode=2)[0].length == 512
    with pytest.raises(UsageError, match="513 tokens"):
        _cases(tiny, token_ids=ids, decode=3)
    with pytest.raises(UsageError, match="513 tokens"):
        _cases(tiny, token_ids=ids, force_tokens="1,2,3")


def test_forced_tokens_are_for_every_row_or_for_each(tiny: Path, tmp_path: Path) -> None:
    (case,) = _cases(tiny, token_ids=["1,2;3,4"], force_tokens="7,8,9")
    assert (case.decode, case.forced) == (3, ((7, 8, 9), (7, 8, 9)))
    assert not case.generates
    (case,) = _cases(tiny, token_ids=["1,2;3,4"], force_tokens="7;8")
    assert case.forced == ((7,), (8,))
    lines = [
        {"name": "mine", "token_ids": [1], "force_tokens": [5, 6]},
        {"name": "commands", "token_ids": [1]},
    ]
    path = tmp_path / "prompts"
    path.write_text("\n".join(map(json.dumps, lines)))
    mine, commands = _cases(tiny, prompts_file=path, decode=4)
    assert (mine.forced, mine.decode, commands.decode) == (((5, 6),), 2, 4)
    assert commands.generates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_tokens": "7;8;9"}, "token ids 1: 3 rows of forced tokens for 2 rows"),
        ({"force_tokens": "512"}, "forced tokens: token id 512 is outside 0..511"),
        ({"force_tokens": "1,2;3"}, "forced tokens: the rows differ in length"),
        ({"force_tokens": "x"}, "expected numbers like 1,2,3"),
        ({"force_tokens": "1", "decode": 2}, "--decode and --force-tokens: give one of them"),
    ],
)
def test_bad_forced_tokens(tiny: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _cases(tiny, token_ids=["1,2;3,4"], **options)


def test_a_recipe_says_all_of_a_case_but_its_ids() -> None:
    plain = Case("plain", ((1, 2),), "text")
    assert plain.to_recipe() == {"name": "plain", "text": "text"}
    full = Case("full", ((1, 2), (3, 4)), None, "why", 2, ((5, 6), (7, 8)), (1, 0), "right", 3, 1)
    for case in (plain, full):
        entry = json.loads(json.dumps(case.to_recipe()))
        assert Case.from_recipe(entry, case.token_ids) == case


def test_without_a_tokenizer_ids_are_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"tokenizer.json: there is no such file.*--token-ids"):
        _cases(tmp_path, prompts=["a"])
    assert _cases(tmp_path, token_ids=["1"]) == (Case("tokens", ((1,),)),)


def test_without_the_tokenizers_package(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_tokenizers(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_tokenizers)
    with pytest.raises(MissingError, match=r"pip install 'goldenctl\[record\]'"):
        _cases(tiny)


def test_damaged_tokenizer(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DamagedError, match="not a tokenizer"):
        _cases(folder)


def test_a_batch_is_padded_to_its_longest_row(tiny: Path) -> None:
    (case,) = _cases(tiny, token_ids=["1,2,3", "4", "5,6;7,8"], batch=True)
    assert (case.name, case.padding, case.padding_side) == ("batch", (0, 2, 1, 1), "left")
    assert case.token_ids == ((1, 2, 3), (0, 0, 4), (0, 5, 6), (0, 7, 8))
    (case,) = _cases(tiny, token_ids=["1,2,3", "4"], batch=True, padding_side="right")
    assert (case.token_ids, case.padding) == (((1, 2, 3), (4, 0, 0)), (0, 2))
    (case,) = _cases(tiny, prompts=["ab", "cd"], token_ids=["9"], batch=True)
    assert case.row_texts == ("ab", "cd", None)
    (case,) = _cases(tiny, token_ids=["1,2", "3,4"], batch=True)
    assert (case.padding, case.row_texts) == ((), ())


def test_forced_tokens_of_a_batch(tiny: Path, tmp_path: Path) -> None:
    (case,) = _cases(tiny, token_ids=["1,2", "4"], batch=True, force_tokens="7,8")
    assert case.forced == ((7, 8), (7, 8))
    path = tmp_path / "prompts"
    path.write_text(
        '{"token_ids": [1], "force_tokens": [5, 6]}\n{"token_ids": [2, 3], "force_tokens": [7, 8]}'
    )
    (case,) = _cases(tiny, prompts_file=path, batch=True)
    assert case.forced == ((5, 6), (7, 8))
    path.write_text('{"token_ids": [1], "force_tokens": [5, 6]}\n{"token_ids": [2, 3]}')
    with pytest.raises(UsageError, match="the batch: only some rows have forced tokens"):
        _cases(tiny, prompts_file=path, batch=True)


def test_nothing_is_generated_behind_padding(tiny: Path) -> None:
    right = {"token_ids": ["1,2", "4"], "batch": True, "padding_side": "right"}
    with pytest.raises(UsageError, match="ends with padding in some rows"):
        _cases(tiny, **right, decode=1)
    assert _cases(tiny, **right, force_tokens="7")
