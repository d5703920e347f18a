"""The standard suite: which inputs, why, and that they come from the checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from goldenctl.errors import UsageError
from goldenctl.golden.steps import position_ids, steps
from goldenctl.model.case import Case
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import load_config
from goldenctl.model.inputs import Inputs
from goldenctl.model.suite import embedding_rows, massive_ids, spread_ids
from goldenctl.model.tokens import left_out_of_suite, make_cases

TEXTS = {"short", "chinese", "code"}
NAMES = [
    "short",
    "single-token",
    "repeated-token",
    "rare-tokens",
    "chinese",
    "code",
    "near-max-positions",
    "embedding-scale",
    "massive-activation",
    "long",
]


def suite(folder: Path, **inputs: Any) -> dict[str, Case]:
    made = make_cases(Inputs(suite="standard", **inputs), folder, load_config(folder))
    return {case.name: case for case in made}


@pytest.fixture
def bare(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint without its tokenizer."""
    folder = Path(shutil.copytree(tiny, tmp_path / "bare"))
    (folder / "tokenizer.json").unlink()
    return folder


def test_every_case_says_why(tiny: Path) -> None:
    cases = suite(tiny)
    assert list(cases) == NAMES
    assert {name for name, case in cases.items() if case.text} == TEXTS
    assert all(len(case.why) > 20 for case in cases.values())
    assert len({case.why for case in cases.values()}) == len(cases)
    assert suite(tiny) == cases


def test_cases_are_what_they_say(tiny: Path) -> None:
    cases = suite(tiny, decode=3)
    config = load_config(tiny)
    assert cases["single-token"].prompt_length == 1
    assert len(set(cases["repeated-token"].token_ids[0])) == 1
    assert cases["repeated-token"].prompt_length == 16
    assert cases["rare-tokens"].token_ids[0][-1] == config.vocab_size - 1
    assert cases["long"].prompt_length == 256
    last = steps(cases["near-max-positions"])[-1]
    assert position_ids(last).tolist() == [[config.max_position_embeddings - 1]]
    assert {case.decode for case in cases.values()} == {3}


def test_texts_are_left_out_without_a_tokenizer(bare: Path) -> None:
    cases = suite(bare)
    assert list(cases) == [name for name in NAMES if name not in TEXTS]
    said = left_out_of_suite(Inputs(suite="standard"), bare)
    assert said == f"{bare}/tokenizer.json: there is no such file, so a prompt cannot be encoded"
    assert left_out_of_suite(Inputs(), bare) == ""


def test_extreme_rows_are_found_in_the_checkpoint(bare: Path) -> None:
    """One planted element makes a token the largest row and the massive activation."""
    weight = Checkpoint.open(bare).tensor("model.embed_tokens.weight")
    with weight.path.open("r+b") as file:
        for token, value in ((337, 200.0), (41, 0.0)):
            row = np.zeros(weight.shape[1], ml_dtypes.bfloat16)
            row[5] = value
            file.seek(weight.offset + token * row.nbytes)
            file.write(row.tobytes())
    cases = suite(bare)
    assert cases["embedding-scale"].token_ids[0][:2] == (337, 41)
    assert cases["massive-activation"].token_ids[0][0] == 337


def test_massive_ids_are_ordered_by_what_the_mlp_makes_of_them(tiny: Path) -> None:
    checkpoint, config = Checkpoint.open(tiny), load_config(tiny)
    rows = embedding_rows(checkpoint)
    ids = massive_ids(checkpoint, config, rows)
    assert len(set(ids)) == 8
    assert sorted(rows.by_norm) == list(range(config.vocab_size))
    weights = {
        name: checkpoint.map(f"model.layers.0.{name}.weight").astype("f8")
        for name in ("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    }
    x = checkpoint.map("model.embed_tokens.weight").astype("f8")[list(ids)]
    normed = x / np.sqrt((x**2).mean(1, keepdims=True) + config.rms_norm_eps)
    normed = normed * weights["post_attention_layernorm"]
    gate, up = normed @ weights["mlp.gate_proj"].T, normed @ weights["mlp.up_proj"].T
    largest = np.abs(x + (gate / (1 + np.exp(-gate)) * up) @ weights["mlp.down_proj"].T).max(1)
    assert (np.diff(largest) <= 1e-6).all()


def test_spread_ids_walk_over_the_vocabulary() -> None:
    ids = spread_ids(64, 512)
    assert len(set(ids)) == 64
    assert min(ids) < 16
    assert max(ids) >= 496
    assert spread_ids(3, 1) == (0, 0, 0)


def test_a_suite_is_no_batch(tiny: Path) -> None:
    with pytest.raises(UsageError, match="--suite and --batch: a suite's cases stand alone"):
        suite(tiny, batch=True)


def test_other_inputs_come_behind(tiny: Path) -> None:
    assert list(suite(tiny, token_ids=["1,2"])) == [*NAMES, "tokens"]


def test_lines_may_say_why_and_where(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"token_ids": [1, 2], "why": "odd", "position_offset": 500}')
    (case,) = make_cases(Inputs(prompts_file=path), tiny, load_config(tiny))
    assert (case.why, case.position_offset) == ("odd", 500)
    assert position_ids(steps(case)[0]).tolist() == [[500, 501]]
    for line, said in (
        ('{"token_ids": [1, 2], "position_offset": 511}', "513 tokens"),
        ('{"token_ids": [1], "position_offset": -1}', "position_offset -1: expected 0 or more"),
        ('{"token_ids": [1], "why": 3}', "why: expected a text"),
    ):
        path.write_text(line)
        with pytest.raises(UsageError, match=said):
            make_cases(Inputs(prompts_file=path), tiny, load_config(tiny))
